"""What an answer owes to a document: the stage computed again without it, and nothing else changed."""

import hashlib
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.model.checkpoint import load_model
from clearseek.recipe.recorded import read_run
from clearseek.recipe.why import Counterfactual, Without, find_without, why
from clearseek.text.examples import EncodedDocuments
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.encoding import blank_rows, shuffled_rows
from tests.recipe.replayed_run import NOTES, recipe_in, run_of


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(recipe_in(tmp_path_factory.mktemp("recipe")), tmp_path_factory.mktemp("runs") / "tiny")


def hash_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def without_note(run, number=3, **settings):
    recorded = read_run(run)
    left_out = find_without(recorded, hash_of(NOTES[number])[:10])
    return why(recorded, "note 3: the sea is", left_out, " deep", is_plain=True, **settings)


def test_the_probability_with_it_is_that_of_the_model_as_it_is(run):
    """By scores, a softmax and a sum."""
    found = without_note(run)
    assert (found.stage, found.documents, found.answer) == ("sft", 1, " deep")
    directory = run / "checkpoints" / "sft"
    model, tokenizer = load_model(directory), Tokenizer.load(directory)
    prompt, answer = tokenizer.encode("note 3: the sea is"), tokenizer.encode(" deep")
    row = torch.tensor([prompt + answer])
    with torch.no_grad():
        states = model(row, torch.ones_like(row), torch.float32, 0).states[0]
        scores = torch.log_softmax(states @ model.head_weight.T, -1)
    expected = sum(float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))
    assert found.log_prob == pytest.approx(expected, abs=1e-4)
    assert found.log_prob_without < found.log_prob


def test_where_it_is_computed_from_changes_nothing(run, tmp_path):
    """From the state before its first use, or from the start of the stage."""
    later = without_note(run)
    assert 0 < later.begun_at < later.first_step
    bare = shutil.copytree(run, tmp_path / "tiny")
    shutil.rmtree(bare / "states")
    from_start = without_note(bare)
    assert from_start.begun_at == 0
    assert from_start.log_prob_without == later.log_prob_without


def test_without_nothing_the_model_is_the_same_to_the_bit(run):
    replay = Counterfactual(read_run(run), Without("sft", 99))
    model, first, begun = replay.compute()
    replay.close()
    assert first is None
    assert begun == 14
    stored = load_model(run / "checkpoints" / "sft").state_dict()
    assert all(torch.equal(tensor, stored[name]) for name, tensor in model.state_dict().items())


def test_a_source_is_left_out_whole(run):
    found = why(
        read_run(run), "note 3: the sea is", find_without(read_run(run), "sft/0"), " deep", is_plain=True
    )
    assert (found.documents, found.first_step, found.begun_at) == (len(NOTES), 1, 0)


def test_nothing_is_written(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    without_note(run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_what_can_t_be_left_out_is_named(run):
    recorded = read_run(run)
    with pytest.raises(
        InputError, match=r"'sft/1' is no source of this run .* sources: pretrain/0, rl/0, sft/0"
    ):
        find_without(recorded, "sft/1")
    with pytest.raises(
        InputError, match="no document whose hash begins with 0123456789: no stage of this run has read"
    ):
        find_without(recorded, "0123456789")
    with pytest.raises(InputError, match="stage rl samples what it learns from"):
        why(recorded, "x", Without("rl", 0), "y")
    with pytest.raises(InputError, match="an empty answer has no probability"):
        why(recorded, "x", Without("sft", 0), "", is_plain=True)


@given(st.data(), st.sampled_from(["best_fit", "concatenate"]))
def test_empty_places_are_those_of_what_is_left_out_and_no_others(data, policy):
    """Every token is a number of its own, so that whose it is can be told from the row."""
    lengths = data.draw(st.lists(st.integers(1, 12), min_size=1, max_size=12))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    whole = EncodedDocuments(
        np.arange(1, offsets[-1] + 1, dtype=np.int32), offsets, np.zeros(len(lengths), np.int64)
    )
    left_out = np.array(data.draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths))))
    rows = shuffled_rows(whole, 7, 6, policy, 0)
    blank = blank_rows(rows, whole, left_out, 7, policy, 0)
    gone = {token for n in np.flatnonzero(left_out) for token in range(offsets[n] + 1, offsets[n + 1] + 1)}
    for place in np.ndindex(rows.tokens.shape):
        if rows.tokens[place] in gone or rows.segments[place] == 0:
            assert (blank.tokens[place], blank.segments[place], blank.weights[place]) == (0, 0, 0)
        else:
            assert blank.tokens[place] == rows.tokens[place]
            assert blank.segments[place] == rows.segments[place]
            assert blank.weights[place] == rows.weights[place]
