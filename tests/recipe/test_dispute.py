"""Where two runs part: the stage, the step and the tensor, and which of the two says what is computed."""

import shutil

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearseek.ledger.log import read
from clearseek.recipe.dispute import (
    bisect_states,
    compute_again,
    differences_of_recipes,
    first_parting,
    first_tensor,
    written_tensor,
)
from clearseek.recipe.recorded import RecordedStage, read_run
from clearseek.train.optimizer import Optimizer
from tests.recipe.replayed_run import rewrite
from tests.recipe.tiny_run import run_in_child


def nudge(call):
    """One weight one unit in the last place larger after the `call`-th update; returns a `prepare`."""

    def prepare():
        step, calls = Optimizer.step, []

        def nudging(self, share):
            step(self, share)
            calls.append(share)
            if len(calls) == call:
                flat = self.muon["layers.1.attention.out.weight"].detach().view(-1)
                flat[3] = torch.nextafter(flat[3], torch.tensor(9.0))

        Optimizer.step = nudging

    return prepare


@pytest.fixture(scope="module")
def ours(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ours"
    assert run_in_child(recipe, out) is None
    return out


def parting_of(first, second):
    return first_parting(read_run(first), read_run(second))


def test_a_run_does_not_part_from_its_copy(ours, tmp_path):
    assert parting_of(ours, shutil.copytree(ours, tmp_path / "copy")) is None


def test_one_unit_in_the_last_place_is_found_with_its_step_and_tensor(recipe, ours, tmp_path):
    """Disturbed after step 5: states are hashed after 4 and 6, and only a replay can tell that theirs is wrong."""
    theirs = tmp_path / "theirs"
    assert run_in_child(recipe, theirs, nudge(5)) is None
    found = parting_of(ours, theirs)
    assert (found.stage, found.same_state, found.other_state) == ("pretrain", 4, 6)
    assert found.step == 6
    assert "loss" in found.what or "state" in found.what
    assert written_tensor(read_run(ours), read_run(theirs), found) is not None
    difference, states = compute_again(theirs, found)
    # which number shows it first depends on the processor: a loss, a part of it, a norm, or the state alone
    assert " was " in difference or "state" in difference
    assert sorted(states) == [5, 6]


def test_a_disturbed_last_state_is_told_by_its_one_tensor(recipe, ours, tmp_path):
    theirs = tmp_path / "theirs"
    assert run_in_child(recipe, theirs, nudge(7)) is None
    found = parting_of(ours, theirs)
    assert (found.step, found.same_state, found.other_state) == (7, 6, 7)
    tensor = written_tensor(read_run(ours), read_run(theirs), found)
    assert tensor == "model.layers.1.attention.out.weight"


def test_a_forged_number_is_found_although_the_states_agree(ours, tmp_path):
    forged = shutil.copytree(ours, tmp_path / "forged")
    rewrite(
        forged,
        lambda r: (
            r | {"loss": 1.0} if (r.get("step"), r.get("stage"), r["kind"]) == (3, "pretrain", "step") else r
        ),
    )
    found = parting_of(ours, forged)
    assert (found.stage, found.step, found.other_state) == ("pretrain", 3, None)
    assert found.what.startswith("step 3: loss is ")


def test_a_replay_where_the_lane_can_t_be_had_says_so(ours, tmp_path):
    """Its kernels were others: that a forged number doesn't come out is told with what it is worth."""
    forged = shutil.copytree(ours, tmp_path / "forged")
    rewrite(
        forged,
        lambda r: (
            r | {"machine": r["machine"] | {"kernels": "of the future"}}
            if r["kind"] == "run"
            else r | {"loss": 1.0}
            if (r.get("step"), r.get("stage"), r["kind"]) == (3, "pretrain", "step")
            else r
        ),
    )
    difference, _ = compute_again(forged, parting_of(ours, forged))
    assert difference.startswith("loss was 1.0 and is ")
    assert "(but the run was made of the future, and this machine computes " in difference
    assert difference.endswith("a difference proves nothing)")


@pytest.mark.parametrize(
    ("stage", "kind", "field"),
    [
        ("pretrain", "eval", "pass_at_1"),
        ("pretrain", "source", "rows"),
        ("pretrain", "data", "tokens"),
        ("pretrain", "mix", "rows_sha256"),
        ("tokenizer", "source", "licence"),
        ("rl", "stage_started", "parameters"),
        ("rl", "stage_finished", "tokens"),
    ],
)
def test_a_forged_line_of_any_kind_is_found_with_its_field(ours, tmp_path, stage, kind, field):
    """The last of its kind in the stage, so that a score is the one that the report shows."""
    forged = shutil.copytree(ours, tmp_path / "forged")
    line = max(r["line"] for r in read(ours / "ledger.jsonl") if (r.get("stage"), r["kind"]) == (stage, kind))
    rewrite(forged, lambda r: r | {field: 77} if r["line"] == line else r)
    found = parting_of(ours, forged)
    assert (found.stage, found.step) == (stage, None)
    assert found.what.startswith(f"{kind} in line {line}: {field} is ")
    assert found.what.endswith(" and 77")


def test_a_line_that_was_left_out_is_found(ours, tmp_path):
    forged = shutil.copytree(ours, tmp_path / "forged")
    rewrite(forged, lambda r: None if r["kind"] == "eval" else r)
    (line, *_) = [r["line"] for r in read(ours / "ledger.jsonl") if r["kind"] == "eval"]
    assert parting_of(ours, forged).what.startswith(f'eval in line {line}: kind is "eval" and ')
    cut = shutil.copytree(ours, tmp_path / "cut")
    (last,) = [
        r["line"]
        for r in read(ours / "ledger.jsonl")
        if (r["kind"], r.get("stage")) == ("stage_finished", "rl")
    ]
    rewrite(cut, lambda r: None if r["line"] == last else r)
    assert parting_of(ours, cut).what == f"stage_finished in line {last}: only one of the runs has it"


def test_runs_of_different_recipes_part_by_their_recipes(recipe, ours, tmp_path):
    other = tmp_path / "other"
    assert run_in_child(recipe, other, overrides=["seed=2", "rl.steps=2"]) is None
    assert differences_of_recipes(read_run(ours), read_run(other)) == [
        "seed: 1 → 2",
        "stages.rl.steps: 3 → 2",
    ]
    found = parting_of(ours, other)
    assert (found.stage, found.step) == ("tokenizer", None)


@given(st.integers(1, 60), st.data())
def test_the_search_by_halves_finds_what_a_walk_finds(count, data):
    hashed = sorted(data.draw(st.sets(st.integers(1, count))))
    parted = data.draw(st.integers(1, count + 1))
    first = RecordedStage(
        "x", {}, {}, {n: {"state": "a"} if n in hashed else {} for n in range(1, count + 1)}
    )
    second = RecordedStage(
        "x", {}, {}, {n: {"state": "a" if n < parted else "b"} for n in range(1, count + 1)}
    )
    same = max((n for n in hashed if n < parted), default=0)
    other = min((n for n in hashed if n >= parted), default=None)
    assert bisect_states(first, second) == (same, other)


def test_of_states_the_first_tensor_of_the_first_step_is_named():
    before = {4: {"a": "1", "b": "1"}, 5: {"a": "1", "b": "1"}, 6: {"a": "2", "b": "2"}}
    assert first_tensor(before, before) is None
    assert first_tensor(before, before | {5: {"a": "1", "b": "9"}, 6: {"a": "9", "b": "9"}}) == (5, "b")
    assert first_tensor(before, {5: {"a": "1"}}) == (5, "b")
