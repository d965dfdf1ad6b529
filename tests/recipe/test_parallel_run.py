"""The same run on two ranks: one set of files, the same data and counts, the same bytes every time."""

import os
import signal

import pytest

from clearseek.config.errors import RunError
from clearseek.ledger.log import read, verify
from clearseek.ledger.timings import read_timings
from clearseek.recipe.run import run_recipe
from clearseek.train.optimizer import Optimizer
from clearseek.train.parallel import world
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
