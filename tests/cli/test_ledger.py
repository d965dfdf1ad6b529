"""`clearseek ledger` as a stranger uses it: in processes of its own, with what is wrong in one line."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from clearseek.cli.main import main
from tests.recipe.tiny_run import run_in_child, write_recipe


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert run_in_child(write_recipe(out.parent), out) is None
    return out


def test_a_stranger_replays_and_signs_and_the_verifier_counts(run, tmp_path, capsys):
    """In a new process, with another key than the run's."""
    environment = os.environ | {"CLEARSEEK_LEDGER_KEY": str(tmp_path / "stranger.key")}
    command = [sys.executable, "-m", "clearseek", "ledger", "replay", str(run), "--sample", "4", "--witness"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("steps drawn: pretrain 3 of 7, rl 1 of 3\n")
    assert done.stdout.count(": the same\n") == 4
    assert done.stdout.endswith("4 steps computed again, every bit the same\n")
    assert main(["ledger", "verify", str(run)]) == 0
    assert "1 other key signed that what was computed again came out the same" in capsys.readouterr().out
    shutil.rmtree(run.with_name("tiny.witness"))


def test_what_can_t_be_replayed_is_one_line(run, capsys):
    for arguments, told in (
        ([], "give one of --step, --sample and --evaluation"),
        (["--evaluation", "--step", "2"], "give one of --step, --sample and --evaluation"),
        (["--evaluation", "--resample"], "--resample belongs to --step or --sample"),
        (["--evaluation", "--stage", "pretrian"], "no stage 'pretrian'; did you mean 'pretrain'?"),
        (["--evaluation", "--stage", "rl"], "stage rl has no evaluation; those that have: pretrain"),
        (["--sample", "2", "--stage", "rl"], "--stage belongs to --step or --evaluation"),
        (["--step", "2"], "several stages have a step 2: give --stage with one of pretrain, rl"),
        (["--step", "9"], "no step 9; there are pretrain 1 to 7, rl 1 to 3"),
    ):
        assert main(["ledger", "replay", str(run), *arguments]) == 2
        assert told in capsys.readouterr().err


def test_a_difference_ends_with_exit_code_1(run, tmp_path, capsys):
    forged = shutil.copytree(run, tmp_path / "forged")
    from tests.recipe.replayed_run import rewrite

    rewrite(forged, lambda r: r | {"loss": 1.0} if r["kind"] == "step" and r["stage"] == "rl" else r)
    assert main(["ledger", "replay", str(forged), "--stage", "rl", "--step", "1"]) == 1
    told = capsys.readouterr()
    assert "rl 1: loss 1" in told.out
    assert "DIFFERS: loss was 1.0 and is " in told.out
    assert "1 of 1 steps come out otherwise; the first is rl 1: loss was 1.0" in told.err


def test_evaluations_are_replayed_and_signed(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "stranger.key"))
    assert main(["ledger", "replay", str(run), "--evaluation", "--witness"]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["pretrain 3", "pretrain 6", "pretrain"]
    assert all(line.endswith(", every answer: the same") for line in lines)
    assert last == "3 evaluations computed again, every bit the same"
    assert main(["ledger", "verify", str(run)]) == 0
    assert "1 other key signed that what was computed again came out the same" in capsys.readouterr().out
    shutil.rmtree(run.with_name("tiny.witness"))


def test_an_evaluation_that_differs_ends_with_exit_code_1(run, tmp_path, capsys):
    forged = shutil.copytree(run, tmp_path / "forged")
    from tests.recipe.replayed_run import rewrite

    rewrite(forged, lambda r: r | {"pass_at_1": 1.0} if r["kind"] == "eval" and r["step"] == -1 else r)
    assert main(["ledger", "replay", str(forged), "--stage", "pretrain", "--evaluation", "--json"]) == 1
    told = capsys.readouterr()
    found = json.loads(told.out)
    assert [one["step"] for one in found] == [3, 6, -1]
    assert [one["difference"] for one in found[:2]] == [None, None]
    assert found[2]["difference"].startswith("pass_at_1 was 1.0 and is ")
    assert "1 of 3 evaluations come out otherwise; the first is pretrain: pass_at_1 was 1.0" in told.err
    rewrite(forged, lambda r: None if r["kind"] == "eval" else r)
    assert main(["ledger", "replay", str(forged), "--evaluation"]) == 2
    assert "forged has no evaluation to compute again" in capsys.readouterr().err


def test_a_dispute_tells_the_place_and_ends_with_exit_code_1(run, tmp_path, capsys):
    assert main(["ledger", "dispute", str(run), str(run)]) == 0
    assert "the ledgers say the same in every stage" in capsys.readouterr().out
    other = tmp_path / "other"
    assert run_in_child(write_recipe(tmp_path), other, overrides=["seed=2"]) is None
    assert main(["ledger", "dispute", str(run), str(other), "--no-replay"]) == 1
    told = capsys.readouterr()
    assert "recipes differ: seed: 1 → 2" in told.out
    assert "part in stage tokenizer" in told.err
