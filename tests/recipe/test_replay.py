"""Steps computed again: the same to the bit, from every stage; and whatever was changed is named."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearseek.config.errors import InputError, RunError
from clearseek.model.kernels import library
from clearseek.model.stored import load_tensors, save_tensors
from clearseek.recipe.recorded import RecordedRun, RecordedStage, enter_lane_of, read_run
from clearseek.recipe.replay import StageReplay, replay_steps
from clearseek.train import exactness, reject
from clearseek.train.optimizer import Optimizer
from tests.recipe.replayed_run import recipe_in, rewrite, run_of


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    return tmp_path_factory.mktemp("recipe") / "notes.jsonl"


@pytest.fixture(scope="module")
def finished(notes, tmp_path_factory):
    return run_of(recipe_in(notes.parent), tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture
def run(finished, tmp_path):
    """A copy to do things to."""
    return shutil.copytree(finished, tmp_path / "tiny")


@pytest.fixture(autouse=True)
def keep_all(monkeypatch):
    """As in the run."""
    monkeypatch.setattr(reject, "_is_good", lambda item, least: True)


def replayed(run, wanted=None, **settings):
    recorded = read_run(run)
    return list(replay_steps(recorded, wanted or recorded.draw(10**6, 0), **settings))


def files_of(run):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in run.rglob("*")}


def test_every_step_of_every_stage_comes_out_the_same_and_nothing_is_written(finished):
    before = files_of(finished)
    found = replayed(finished)
    assert {one.stage for one in found} == {"pretrain", "rl", "sft", "reject", "distill"}
    assert [one for one in found if one.difference] == []
    assert all(one.state_step >= one.step for one in found if one.stage != "reject")
    assert [one.state_step for one in found if one.stage == "reject"] == [None]
    assert files_of(finished) == before


def test_completions_sampled_again_are_those_that_were_stored(finished):
    found = replayed(finished, [("rl", step) for step in (1, 2, 3)], resample=True)
    assert [one.difference for one in found] == [None] * 3


def test_steps_need_nothing_that_was_computed_before_their_state(run):
    """Step 7 begins at the state after step 6; the ones before it may be gone."""
    shutil.rmtree(run / "states/pretrain/step-000002")
    shutil.rmtree(run / "states/pretrain/step-000004")
    (one,) = replayed(run, [("pretrain", 7)])
    assert one.difference is None


def test_a_source_that_is_gone_is_read_from_the_run(finished, notes):
    """Whoever has the run has what it was trained on."""
    content = notes.read_text()
    notes.unlink()
    try:
        assert [one.difference for one in replayed(finished, [("sft", 1)])] == [None]
    finally:
        notes.write_text(content)


@pytest.mark.parametrize(
    ("stage", "field"), [("pretrain", "loss"), ("rl", "grad_norm"), ("reject", "entropy")]
)
def test_a_number_that_was_changed_is_named(run, stage, field):
    def change(record):
        if record.get("stage") == stage and record.get("step") == 1 and record["kind"] == "step":
            return record | {field: 0.125}
        return record

    rewrite(run, change)
    (one,) = replayed(run, [(stage, 1)])
    assert one.difference.startswith(f"{field} was 0.125 and is ")


def test_a_replay_with_other_kernels_accuses_nobody(run, monkeypatch):
    """The lane is told not to be had, so that whoever reads a difference knows what it is worth."""
    assert enter_lane_of(read_run(run), ["pretrain"]) is None
    form = library.form()
    assert read_run(run).stage("pretrain").session["machine"]["kernels"] == form
    monkeypatch.setattr(library, "form", lambda: "avx512" if form == "none" else "none")
    assert "and this machine computes with" in enter_lane_of(read_run(run), ["pretrain"])
    rewrite(run, lambda r: r | {"machine": without_kernels(r["machine"])} if r["kind"] == "run" else r)
    assert enter_lane_of(read_run(run), ["pretrain"]) is None


def without_kernels(machine):
    return {key: value for key, value in machine.items() if not key.startswith("kernels")}


def test_a_tensor_that_comes_out_otherwise_is_named(finished, monkeypatch):
    """Only the last step of the replay is disturbed, in one tensor, by one unit in the last place."""
    step = Optimizer.step

    def disturbed(self, share):
        step(self, share)
        calls.append(share)
        if len(calls) == 1:
            names.append(next(iter(self.muon)))
            flat = self.muon[names[0]].detach().view(-1)
            flat[3] = torch.nextafter(flat[3], torch.tensor(9.0))

    calls, names = [], []
    monkeypatch.setattr(Optimizer, "step", disturbed)
    (one,) = replayed(finished, [("pretrain", 7)])
    assert one.difference == f"the state's hash; the first tensor that is another is model.{names[0]}"


def test_a_difference_on_the_way_is_told_with_its_step(run):
    rewrite(
        run,
        lambda r: (
            r | {"loss": 1.5} if (r.get("stage"), r.get("step"), r["kind"]) == ("pretrain", 5, "step") else r
        ),
    )
    first, second = replayed(run, [("pretrain", 5), ("pretrain", 6)])
    assert first.difference.startswith("loss was 1.5")
    assert second.difference.startswith("step 5: loss was 1.5")


def test_a_kept_state_that_was_changed_is_refused(run):
    path = run / "states/pretrain/step-000006/state.safetensors"
    tensors, _ = load_tensors(path)
    tensors["model.embedding.weight"][3, 3] += 1
    save_tensors(path, tensors)
    with pytest.raises(
        RunError, match=r"not the state that the ledger has after step 6: model\.embedding\.weight was"
    ):
        replayed(run, [("pretrain", 7)])


def test_a_rollout_that_was_changed_or_lost_is_refused(run):
    path = run / "rollouts/rl/step-000002.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(
        RunError, match=r"step-000002\.safetensors is not the file that line \d+ .* was changed"
    ):
        replayed(run, [("rl", 2)])
    path.unlink()
    with pytest.raises(
        RunError, match=r"step-000002\.safetensors, named in line \d+ of the ledger, is missing"
    ):
        replayed(run, [("rl", 2)])


def test_a_model_that_a_stage_did_not_begin_with_is_refused(run):
    path = run / "checkpoints/pretrain/model.safetensors"
    tensors, metadata = load_tensors(path)
    tensors["model.norm.weight"][0] += 1
    save_tensors(path, tensors, metadata)
    with pytest.raises(RunError, match="stage rl began with other files than lie there now"):
        replayed(run, [("rl", 1)])


def test_documents_that_were_changed_are_refused(run):
    path = run / "data/sft/0.jsonl"
    path.write_text(path.read_text().replace("grey", "blue"))
    with pytest.raises(RunError, match="is not what stage sft trained on"):
        replayed(run, [("sft", 1)])


def test_a_ledger_that_was_changed_is_not_replayed(run):
    path = run / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"step":2,', b'"step":3,', 1))
    with pytest.raises(RunError, match="does not follow"):
        read_run(run)


def test_half_a_run_is_named(run, tmp_path):
    with pytest.raises(InputError, match=r"has no ledger\.jsonl: give the directory of a run"):
        read_run(tmp_path)
    (run / "recipe.toml").unlink()
    with pytest.raises(RunError, match=r"has no recipe\.toml: the run was half copied"):
        read_run(run)


def test_a_step_is_found_by_its_stage(finished):
    recorded = read_run(finished)
    assert recorded.find_step(7, "pretrain") == ("pretrain", 7)
    with pytest.raises(
        InputError, match="several stages have a step 2: give --stage with one of pretrain, rl"
    ):
        recorded.find_step(2, None)
    with pytest.raises(InputError, match="no step 8; there are pretrain 1 to 7"):
        recorded.find_step(8, "pretrain")
    with pytest.raises(InputError, match="no stage 'pretrian'"):
        recorded.find_step(1, "pretrian")


def started_exact(run, exact):
    """The `rl` stage's line says `exact` (None: nothing, as before `auto`)."""

    def change(record):
        if record["kind"] != "stage_started" or record["stage"] != "rl":
            return record
        rest = {key: value for key, value in record.items() if key != "exact"}
        return rest if exact is None else rest | {"exact": exact}

    rewrite(run, change)
    recorded = read_run(run)
    return StageReplay(recorded, "rl")


def test_whether_learning_was_exact_is_read_from_the_ledger(run, monkeypatch):
    """Whatever this version would decide; a line that does not say it is of a run whose default was true."""
    started = read_run(run).stage("rl").started
    assert started["config"]["exact"] == "auto"
    assert started["exact"] is True
    monkeypatch.setattr(exactness, "PRICES", (exactness.Price(1, 9.9, "all"),))
    for said, wanted in ((None, True), (False, False), (True, True)):
        replay = started_exact(run, said)
        try:
            assert replay.context.is_exact(replay.stage, replay.start.model.config) is wanted
        finally:
            replay.close()
    explicit = replay.stage.model_copy(update={"exact": False})
    assert not replay.context.is_exact(explicit, replay.start.model.config)


def test_random_steps_are_the_same_for_a_seed_and_lie_in_all_stages(finished):
    recorded = read_run(finished)
    assert recorded.draw(5, 1) == recorded.draw(5, 1) != recorded.draw(5, 2)
    assert len(recorded.draw(10**6, 1)) == sum(len(stage.steps) for stage in recorded.stages.values())


def run_with(**lengths):
    """Stages of so many steps, and nothing else."""
    stages = {
        name: RecordedStage(name, {}, {}, {step: {} for step in range(1, length + 1)})
        for name, length in lengths.items()
    }
    return RecordedRun(Path("run"), None, stages, "")


def test_every_stage_gets_its_share_of_the_drawn_steps():
    run = run_with(pretrain=1270, tokenizer=0, sft=81, reject=2, rl=12)

    def drawn(count, seed=0):
        steps = run.draw(count, seed)
        assert len(set(steps)) == len(steps) == count
        assert steps == sorted(steps, key=lambda one: (list(run.stages).index(one[0]), one[1]))
        assert all(step in run.stages[name].steps for name, step in steps)
        return Counter(name for name, _ in steps)

    assert drawn(4) == {"pretrain": 1, "sft": 1, "reject": 1, "rl": 1}
    assert drawn(50) == {"pretrain": 45, "sft": 3, "reject": 1, "rl": 1}
    assert drawn(1365) == {"pretrain": 1270, "sft": 81, "reject": 2, "rl": 12}
    for seed in range(20):
        assert set(drawn(2, seed).values()) == {1}
    assert set().union(*(drawn(1, seed) for seed in range(40))) == {"pretrain", "sft", "reject", "rl"}


@given(
    st.dictionaries(st.text("abcdef", min_size=1), st.integers(0, 40)), st.integers(1, 120), st.integers(0, 9)
)
def test_no_stage_that_has_steps_is_left_out_of_a_draw_that_has_room(lengths, count, seed):
    run = run_with(**lengths)
    have = [name for name, length in lengths.items() if length]
    if not have:
        with pytest.raises(InputError, match="run has no step to compute again"):
            run.draw(count, seed)
        return
    steps = run.draw(count, seed)
    assert len(set(steps)) == len(steps) == min(count, sum(lengths.values()))
    assert len({name for name, _ in steps}) == min(count, len(have))


def test_instructions_that_torch_does_not_use_here_are_named(run):
    rewrite(
        run, lambda r: r | {"machine": r["machine"] | {"capability": "NEON"}} if r["kind"] == "run" else r
    )
    with pytest.raises(RunError, match=r"stage rl was computed with NEON, and torch computes with .* here"):
        replayed(run, [("rl", 1)])
