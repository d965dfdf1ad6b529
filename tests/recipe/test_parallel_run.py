"""The same run on two ranks: one set of files, the same data and counts, the same bytes every time."""

import os
import shutil
import signal

import pytest

from clearseek.config.errors import RunError
from clearseek.ledger.log import read, verify
from clearseek.ledger.timings import read_timings
from clearseek.recipe.recorded import read_run
from clearseek.recipe.replay import replay_steps
from clearseek.recipe.replay_evaluation import replay_evaluations
from clearseek.recipe.run import run_recipe
from clearseek.train.optimizer import Optimizer
from clearseek.train.parallel import world
from tests.recipe.replayed_run import rewrite
from tests.recipe.tiny_run import contents, run_in_child
from tests.train.ranks import on_ranks

SECONDS = 110.0  # for a whole run, on a machine that has other things to do too


def run(recipe, out, stop_at=None):
    """Run on this rank; with `stop_at`, fail on every rank at that optimiser step."""
    step, calls = Optimizer.step, [0]

    def counted(self, share):
        calls[0] += 1
        if calls[0] == stop_at:
            raise RunError("stopped")
        step(self, share)

    Optimizer.step = counted
    try:
        run_recipe(recipe, out=out, device="cpu")
    except RunError as error:
        return str(error)
    return world().rank


@pytest.fixture(scope="module")
def finished(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    assert on_ranks(2, run, folder, recipe, folder / "run", timeout_seconds=SECONDS) == [0, 1]
    return folder / "run"


def test_two_ranks_write_one_run(finished):
    assert verify(finished / "ledger.jsonl").num_lines > 20
    (started,) = [record for record in read(finished / "ledger.jsonl") if record["kind"] == "run"]
    assert started["processes"] == 2
    costs = {
        r["stage"]: r["cpu_seconds"] for r in read_timings(finished / "timings.jsonl") if r["kind"] == "stage"
    }
    assert set(costs) == {"tokenizer", "pretrain", "rl"}
    assert all(seconds > 0 for seconds in costs.values())
    assert not list(finished.rglob("*partial*"))


def test_two_ranks_do_what_one_process_does(recipe, finished, tmp_path):
    """The same records with the same counts, and the first step's numbers to 1e-6; then bf16 in Muon parts them."""
    assert run_in_child(recipe, tmp_path / "one") is None
    one, two = (read(path / "ledger.jsonl") for path in (tmp_path / "one", finished))
    assert [(r["kind"], r.get("stage"), r.get("step")) for r in one] == [
        (r["kind"], r.get("stage"), r.get("step")) for r in two
    ]
    for mine, theirs in zip(one, two, strict=True):
        for field in ("tokens", "documents", "fingerprint", "parameters", "config", "n", "groups"):
            if not (field == "tokens" and mine.get("stage") == "rl"):  # sampled: as long as they like
                assert mine.get(field) == theirs.get(field)
    first = [next(r for r in records if r["kind"] == "step") for records in (one, two)]
    for field in ("loss", "grad_norm", "mtp_loss", "balance_loss", "expert_load_max"):
        assert first[1][field] == pytest.approx(first[0][field], rel=1e-6)


def replayed(run_dir, wanted):
    """(stage, step, difference) of steps computed again on this rank."""
    return [(one.stage, one.step, one.difference) for one in replay_steps(read_run(run_dir), wanted)]


def test_two_ranks_replay_what_two_computed(finished, tmp_path):
    """Every number to the bit, the state's hash too; one process says what to start instead."""
    wanted = [("pretrain", 3), ("rl", 2)]
    first, _ = on_ranks(2, replayed, tmp_path, finished, wanted, timeout_seconds=SECONDS)
    assert first == [("pretrain", 3, None), ("rl", 2, None)]
    with pytest.raises(
        RunError, match=r"by 2 processes and here are 1, .*torchrun --nproc-per-node 2 -m clearseek"
    ):
        replayed(finished, wanted)


def examined(run_dir):
    """(stage, step, difference) of evaluations computed again on this rank."""
    run = read_run(run_dir)
    return [(one.stage, one.step, one.difference) for one in replay_evaluations(run, run.examined())]


def test_two_ranks_examine_what_two_examined(finished, tmp_path):
    """On the way and at the end of a stage, each its share of the problems."""
    first, _ = on_ranks(2, examined, tmp_path, finished, timeout_seconds=SECONDS)
    assert first == [("pretrain", 3, None), ("pretrain", 6, None), ("pretrain", -1, None)]
    with pytest.raises(RunError, match="by 2 processes and here are 1"):
        examined(finished)


def test_a_step_that_differs_is_named_by_the_first_of_two_ranks(finished, tmp_path):
    """And none waits for the other: both go on to the last step."""
    run_dir = shutil.copytree(finished, tmp_path / "run")
    changed = {"kind": "step", "stage": "pretrain", "step": 3}
    rewrite(run_dir, lambda r: r | {"loss": 2.5} if changed.items() <= r.items() else r)
    wanted = [("pretrain", 3), ("rl", 1)]
    first, _ = on_ranks(2, replayed, tmp_path, run_dir, wanted, timeout_seconds=SECONDS)
    assert first[0][2].startswith("loss was 2.5 and is")
    assert first[1] == ("rl", 1, None)


def test_two_ranks_stopped_and_started_again_leave_the_same_bytes(recipe, finished, tmp_path):
    """Exact resume at the same number of ranks, within a stage and across stages."""
    out = tmp_path / "run"
    for stop_at in (4, 5, 3):
        assert set(on_ranks(2, run, tmp_path, recipe, out, stop_at, timeout_seconds=SECONDS)) == {"stopped"}
    on_ranks(2, run, tmp_path, recipe, out, timeout_seconds=SECONDS)
    assert contents(out) == contents(finished)


def lose_the_first(recipe, out):
    """What the second rank says when the first is killed in its first optimiser step."""
    if world().is_first:
        Optimizer._muon_step = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(RunError) as lost:
        run_recipe(recipe, out=out, device="cpu")
    raise AssertionError(lost.value)


def test_a_rank_that_loses_another_says_what_it_waited_for(recipe, tmp_path):
    """Law 7: it ends at once, with one line."""
    with pytest.raises(AssertionError) as failed:
        on_ranks(2, lose_the_first, tmp_path, recipe, tmp_path / "run", timeout_seconds=SECONDS)
    said = str(failed.value)
    assert "rank 0: ended with status 9" in said
    assert "rank 1 of 2 gave up waiting for the other ranks' " in said
    assert "see what the other ranks said, then run the same command again" in said
