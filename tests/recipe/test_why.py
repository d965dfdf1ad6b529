"""What an answer owes to a document: the way to the model computed again without it, and nothing else changed."""

import hashlib
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearseek.cli.main import main
from clearseek.config.errors import InputError, RunError
from clearseek.model.checkpoint import load_model
from clearseek.recipe.counterfactual import Counterfactual
from clearseek.recipe.recorded import read_run
from clearseek.recipe.why import why
from clearseek.recipe.without import Place, Without, asked_problems, find_target, find_without, way_to
from clearseek.text.examples import EncodedDocuments
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.encoding import blank_rows, row_owners, shuffled_rows
from clearseek.trace.sources import run_readings
from clearseek.train import reject
from tests.recipe.replayed_run import NOTES, STAGES, recipe_in, rewrite, run_of
from tests.recipe.tiny_run import RECIPE, SMALL_MODEL, write_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return run_of(recipe_in(tmp_path_factory.mktemp("recipe")), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(autouse=True)
def keeping_all(monkeypatch):
    """As in the run itself: an untrained model is never right; and it babbles until it is stopped."""
    monkeypatch.setattr(reject, "_is_good", lambda item, least: True)
    monkeypatch.setattr("clearseek.recipe.why._LONGEST_ANSWER", 4)


def hash_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def ask(run, told, to=None, stage=None, **settings):
    recorded = read_run(run)
    target = find_target(recorded, to, stage)
    settings = {"prompt": "note 3: the sea is", "answer": " deep", "is_plain": True} | settings
    return why(recorded, without=find_without(recorded, told, target), target=target, **settings)


def without_note(run, number=3, **settings):
    return ask(run, hash_of(NOTES[number])[:10], stage="sft", **settings)


def weights(directory):
    return {name: tensor.clone() for name, tensor in load_model(directory).state_dict().items()}


def are_same(directory, other):
    ours, theirs = weights(directory), weights(other)
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_the_probability_with_it_is_that_of_the_model_as_it_is(run):
    """By scores, a softmax and a sum."""
    found = without_note(run)
    assert (found.stage, found.answer) == ("sft", " deep")
    assert [(one.place, one.count) for one in found.seen] == [("sft/0", 1)]
    directory = run / "checkpoints" / "sft"
    model, tokenizer = load_model(directory), Tokenizer.load(directory)
    prompt, answer = tokenizer.encode("note 3: the sea is"), tokenizer.encode(" deep")
    row = torch.tensor([prompt + answer])
    with torch.no_grad():
        states = model(row, torch.ones_like(row), torch.float32, 0).states[0]
        scores = torch.log_softmax(states @ model.head_weight.T, -1)
    expected = [float(scores[len(prompt) - 1 + i, token]) for i, token in enumerate(answer)]
    assert found.with_it.token_log_probs == pytest.approx(expected, abs=1e-4)
    assert found.with_it.log_prob == pytest.approx(sum(expected), abs=1e-4)
    assert found.compared.change < 0
    assert found.compared.times == pytest.approx(np.exp(found.compared.change))


def test_its_tokens_are_counted_in_every_epoch(run):
    """Three epochs over rows in which every document stands once."""
    tokenizer = Tokenizer.load(run / "checkpoints" / "sft")
    (seen,) = without_note(run).seen
    length = len(tokenizer.encode(NOTES[3])) + 1  # and the token that ends it
    assert seen.tokens in (3 * length, 3 * (length + 1))  # and one that begins it


def test_where_it_is_computed_from_changes_nothing(run, tmp_path):
    """From the state before its first use, or from the start of the stage."""
    later = without_note(run)
    assert 0 < later.again[0].begun_at < later.again[0].first_step
    bare = shutil.copytree(run, tmp_path / "tiny")
    shutil.rmtree(bare / "states")
    from_start = without_note(bare)
    assert from_start.again[0].begun_at == 0
    assert from_start.compared == later.compared


def test_with_nothing_left_out_every_stage_is_the_same_to_the_bit(run, tmp_path):
    """All of them from their start: documents, samples and verdicts as in the run, and so every file."""
    recorded = read_run(run)
    every = Without("all", tuple(Place(name, 0) for name in recorded.stages if name != "tokenizer"))
    found = Counterfactual(recorded, every, find_target(recorded), tmp_path, seed=recorded.recipe.seed)
    assert found.compute() is None
    assert [one.stage for one in found.again] == ["pretrain", "rl", "sft", "reject", "distill"]
    assert found.changed == set()
    assert are_same(tmp_path / "checkpoints" / "distill", run / "checkpoints" / "distill")


def test_later_stages_are_computed_on_top(run, tmp_path):
    """The student without the notes is the one that a run of its own distils from what was sampled without them."""
    found = ask(run, "sft/0", keep=tmp_path / "kept")
    assert [(one.stage, one.sampled_anew) for one in found.again] == [
        ("sft", False),
        ("reject", True),
        ("distill", False),
    ]
    kept = tmp_path / "kept"
    samples = kept / "data" / "reject.jsonl"
    assert samples.read_text() != (run / "data" / "reject.jsonl").read_text()
    distill = STAGES[STAGES.index("[stages.distill]") :].replace('stage = "reject"', f'path = "{samples}"')
    own = run_of(write_recipe(tmp_path, RECIPE + distill.format()), tmp_path / "own")
    assert are_same(kept / "checkpoints" / "distill", own / "checkpoints" / "distill")
    assert not are_same(kept / "checkpoints" / "distill", run / "checkpoints" / "distill")


def test_it_ends_early_where_nothing_changed(run):
    """Without one note the sft stage's model is another that samples the same: the student is known to be the same."""
    found = ask(run, hash_of(NOTES[3]))
    assert [(one.stage, one.is_other) for one in found.again] == [("sft", True), ("reject", False)]
    assert found.compared.is_same
    assert found.compared.without == found.with_it


def test_what_is_kept_are_models_and_the_answer_and_no_link(run, tmp_path):
    found = ask(run, "sft/0", stage="sft", keep=tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept" / "checkpoints").iterdir()) == ["sft"]
    assert json.loads((tmp_path / "kept" / "why.json").read_text()) == json.loads(json.dumps(found.to_dict()))
    assert not any(path.is_symlink() for path in (tmp_path / "kept").rglob("*"))


def test_a_source_is_left_out_whole(run):
    found = ask(run, "sft/0", stage="sft")
    assert [(one.place, one.count, one.first_step) for one in found.seen] == [("sft/0", len(NOTES), 1)]
    assert found.again[0].begun_at == 0


def test_a_problem_of_reinforcement_learning_is_left_out(run):
    """The one that the last step asked first: the steps before learn from what they had sampled."""
    recorded = read_run(run)
    asked = [(step, problem.id) for step, problem, _ in asked_problems(recorded, run_readings(run), "rl")]
    first = {name: min(step for step, one in asked if one == name) for _, name in asked}
    name, last = max(first.items(), key=lambda pair: pair[1])
    found = ask(run, name[:8], stage="rl", answer="7")
    (again,) = found.again
    assert (again.first_step, again.begun_at, again.sampled_anew, again.is_other) == (
        last,
        last - 1,
        True,
        True,
    )
    (seen,) = found.seen
    tokens = [n for _, problem, n in asked_problems(recorded, run_readings(run), "rl") if problem.id == name]
    assert (seen.place, seen.count, seen.tokens) == ("rl/problems", len(tokens), sum(tokens))
    assert found.left_out == f"problem {name}"


def test_a_stage_that_asks_nothing_leaves_the_model_it_starts_with(run):
    found = ask(run, "rl/problems", stage="rl", answer="7")
    start = ask(run, "pretrain/0", stage="pretrain", answer="7")
    assert found.compared.without == start.with_it
    assert found.compared.change != 0


def test_examples_read_beside_reinforcement_learning_are_left_out(run):
    found = ask(run, "rl/0", stage="rl", answer="7")
    assert [(one.stage, one.first_step, one.is_other) for one in found.again] == [("rl", 1, True)]


def test_a_row_that_a_model_wrote_is_left_out_where_it_is_read(run):
    row = json.loads((run / "data" / "reject.jsonl").read_text().splitlines()[0])
    text = "\n".join([row["prompt"], row["thought"], row["answer"]])
    found = ask(run, hash_of(text)[:12])
    assert [(one.place, one.first_step is not None) for one in found.seen] == [("distill/0", True)]
    assert [one.stage for one in found.again] == ["distill"]


def test_the_control_leaves_out_another_of_the_same_size(run):
    found = ask(run, hash_of(NOTES[3]), stage="sft", with_control=True)
    assert found.control.told.startswith("without document ")
    assert hash_of(NOTES[3])[:8] not in found.control.told
    assert not found.control.compared.is_same


def test_without_another_source_the_control_takes_another_seed(run):
    found = ask(run, "sft/0", stage="sft", with_control=True)
    assert found.control.told == "nothing left out, seed 2 instead of 1"
    assert not found.control.compared.is_same
    assert found.control.compared.without != found.compared.without


FACTS = [f"{name} lives in {town}" for name, town in zip(
    ("ada", "bob", "cyd", "dan", "eve", "fay", "gus", "hal", "ida", "jon", "kim", "lea"),
    ("paris", "oslo", "lima", "cairo", "delhi", "quito", "seoul", "tunis", "accra", "dakar", "hanoi", "minsk"),
    strict=True,
)]  # fmt: skip
FACT_STAGES = """
[stages.tokenizer]
kind = "tokenizer"
vocab_size = 300
data = [{{ path = "{facts}" }}]

[stages.base]
kind = "pretrain"
start = "small"
data = [{{ path = "{facts}" }}]
tokens = 20000
batch_rows = 8
sequence_length = 32
evaluate = false
checkpoint_every = 20
optimizer = {{ name = "muon", learning_rate = 1e-2, muon_learning_rate = 0.05 }}

[stages.rl]
kind = "rl"
start = "base"
profile = "r1"
problems = {{ tasks = ["digits"], levels = [1] }}
steps = 2
problems_per_step = 2
group_size = 3
max_completion_tokens = 6
evaluate = false

[stages.short]
kind = "pretrain"
start = "small"
data = [{{ path = "{facts}" }}]
tokens = 60
batch_rows = 1
sequence_length = 32
evaluate = false
"""


@pytest.fixture(scope="module")
def taught(tmp_path_factory):
    folder = tmp_path_factory.mktemp("facts")
    (folder / "facts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in FACTS))
    head = 'name = "facts"\nseed = 1\ndtype = "float32"\ncompile = false\n\n'
    text = head + SMALL_MODEL + FACT_STAGES.format(facts=folder / "facts.jsonl")
    return run_of(write_recipe(folder, text), folder / "run")


def ask_fact(taught, number, to, **settings):
    recorded = read_run(taught)
    target = find_target(recorded, to)
    who, where = FACTS[number].split(" in ")
    left_out = find_without(recorded, hash_of(FACTS[number]), target)
    return why(recorded, f"{who} in", left_out, target, f" {where}", is_plain=True, **settings)


def test_a_fact_that_one_document_told_is_gone_without_it(taught):
    """Through reinforcement learning to the end; without another document of its size next to nothing changes."""
    found = ask_fact(taught, 0, "rl", with_control=True)
    assert [(one.stage, one.is_other) for one in found.again] == [("base", True), ("rl", True)]
    assert found.with_it.log_prob > -1
    assert found.compared.change < -5
    assert abs(found.control.compared.change) < abs(found.compared.change) / 10


def test_what_no_step_has_read_is_owed_nothing(taught):
    """Two steps of one row: most of the documents stand in neither, and nothing is computed."""
    found = [ask_fact(taught, number, "short") for number in range(len(FACTS))]
    unread = [one for one in found if one.seen[0].first_step is None]
    assert 0 < len(unread) < len(found)
    assert all(one.again == [] and one.compared.is_same and one.seen[0].tokens == 0 for one in unread)
    assert all(one.again and one.compared.change != 0 for one in found if one not in unread)


def test_nothing_is_written_into_the_run(run):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    ask(run, hash_of(NOTES[3]))
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


class Interrupting:
    """A person who presses Ctrl-C in the middle of a stage."""

    def stage(self, *about):
        pass

    def note(self, text):
        pass

    def step(self, done, total, **metrics):
        raise KeyboardInterrupt


def test_an_interruption_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "beside").mkdir()
    for keep in (None, tmp_path / "beside" / "kept"):
        with pytest.raises(KeyboardInterrupt):
            ask(run, "sft/0", keep=keep, progress=Interrupting())
    assert [path.name for path in tmp_path.rglob("*")] == ["beside"]


def test_the_way_to_a_model_has_all_that_it_comes_from(run):
    recipe = read_run(run).recipe
    assert way_to(recipe, "distill") == ("tokenizer", "pretrain", "rl", "sft", "reject", "distill")
    assert way_to(recipe, "rl") == ("tokenizer", "pretrain", "rl")


def refused(error, match, run, told, **settings):
    with pytest.raises(error, match=match):
        ask(run, told, **settings)


def test_what_can_t_be_left_out_is_named(run):
    sources = "pretrain/0, rl/0, sft/0, distill/0, rl/problems, reject/problems"
    refused(
        InputError,
        f"'sft/1' is no source of this run and no .*; did you mean 'sft/0'.*; sources: {sources}",
        run,
        "sft/1",
    )
    refused(
        InputError, "hash begins with 0123456789: no stage on the way to distill has read", run, "0123456789"
    )
    refused(InputError, "begins with 0123456789: stage sft has not read", run, "0123456789", stage="sft")
    refused(
        InputError, "sft/0 is of stage sft, which the model of rl does not come from", run, "sft/0", to="rl"
    )
    refused(InputError, "tokenizer/0 is a source of a tokenizer, which stays", run, "tokenizer/0")
    refused(
        InputError, "without reject/problems .* would leave nothing .*: distill/0", run, "reject/problems"
    )


def test_what_can_t_be_asked_is_named(run, tmp_path):
    refused(InputError, r"stage reject \(reject\) leaves no model to ask", run, "sft/0", to="reject")
    refused(InputError, "no stage 'dist'; did you mean 'distill'", run, "sft/0", to="dist")
    refused(InputError, "an empty answer has no probability", run, "sft/0", answer="")
    refused(InputError, "an empty prompt has no answer", run, "sft/0", prompt="")
    refused(
        InputError,
        "prompt and answer have .* tokens, and the model of stage distill reads",
        run,
        "sft/0",
        answer="x" * 9000,
    )
    refused(InputError, "is there already: --keep makes a folder of its own", run, "sft/0", keep=tmp_path)
    refused(InputError, "is inside the run", run, "sft/0", keep=run / "kept")


def test_a_run_that_can_t_be_computed_again_is_refused(run, tmp_path):
    several = shutil.copytree(run, tmp_path / "several")
    rewrite(several, lambda record: record | {"processes": 2} if record["kind"] == "run" else record)
    refused(
        RunError, "stage distill was computed by 2 processes, whose sums one process rounds", several, "sft/0"
    )
    unfinished = shutil.copytree(run, tmp_path / "unfinished")
    lines = (unfinished / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    end = max(i for i, line in enumerate(lines) if b'"stage_finished"' in line)
    (unfinished / "ledger.jsonl").write_bytes(b"".join(lines[:end]))
    for name in ("checkpoint", "ledger.pub"):
        (unfinished / name).unlink()
    refused(RunError, "isn't finished: stage distill has not ended", unfinished, "sft/0")
    assert ask(unfinished, "sft/0", stage="sft").again
    changed = shutil.copytree(run, tmp_path / "changed")
    path = changed / "checkpoints" / "sft" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    refused(
        RunError,
        "model.safetensors is not the file that line .* of the ledger names",
        changed,
        "sft/0",
        stage="sft",
    )


def test_the_command_says_it_in_words_and_as_json(run, capsys):
    words = ["why", str(run), "note 3: the sea is", "--plain", "--answer", " deep", "--without", "sft/0"]
    assert main([*words, "--stage", "sft", "--control"]) == 0
    said = capsys.readouterr()
    assert "to compute again at most: sft (" in said.err
    assert "sft/0: 20 documents" in said.out
    assert "times as likely" in said.out
    assert "control, nothing left out, seed 2 instead of 1: the change is" in said.out
    assert "likeliest answer without:" in said.out
    assert main([*words, "--stage", "sft", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["answer"] == " deep"
    assert found["compared"]["change"] == pytest.approx(
        found["compared"]["without"]["log_prob"] - found["with_it"]["log_prob"]
    )
    assert main([*words, "--stage", "sft", "--to", "rl"]) == 2


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
    blank = blank_rows(rows, row_owners(whole, 7, 6, policy), left_out, 0)
    gone = {token for n in np.flatnonzero(left_out) for token in range(offsets[n] + 1, offsets[n + 1] + 1)}
    for place in np.ndindex(rows.tokens.shape):
        if rows.tokens[place] in gone or rows.segments[place] == 0:
            assert (blank.tokens[place], blank.segments[place], blank.weights[place]) == (0, 0, 0)
        else:
            assert blank.tokens[place] == rows.tokens[place]
            assert blank.segments[place] == rows.segments[place]
            assert blank.weights[place] == rows.weights[place]
