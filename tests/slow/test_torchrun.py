"""`torchrun -m clearseek run`: two processes train the smoke recipe, and a killed pair resumes to the same bytes."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clearseek.ledger.log import read
from tests.recipe.tiny_run import contents, write_recipe

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 600.0


def torchrun(*arguments, processes=2):
    """Start the command line on some processes of this machine, in a process group of its own."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(processes),
    ]
    return subprocess.Popen(
        [*command, "-m", "clearseek", "run", *map(str, arguments), "--device", "cpu"],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process):
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


@pytest.mark.timeout(SECONDS)
def test_two_processes_run_every_kind_of_stage(tmp_path):
    code, out, err = finish(torchrun("smoke", "--out", tmp_path / "run"))
    assert code == 0, err
    assert out.count("report ") == 1  # one rank speaks
    records = read(tmp_path / "run" / "ledger.jsonl")
    finished = [record["stage"] for record in records if record["kind"] == "stage_finished"]
    assert finished == [
        "tokenizer", "pretrain", "cold-start", "rl-reasoning", "reject", "sft", "rl-all", "distill", "final"
    ]  # fmt: skip
    assert records[0]["processes"] == 2
    losses = [r["loss"] for r in records if r["kind"] == "step" and r["stage"] == "pretrain"]
    assert losses[-1] < losses[0] / 3


@pytest.mark.timeout(SECONDS)
def test_a_killed_pair_resumes_to_the_same_bytes(tmp_path):
    recipe = write_recipe(tmp_path)
    code, _, err = finish(torchrun(recipe, "--out", tmp_path / "straight"))
    assert code == 0, err
    ledger = tmp_path / "killed" / "ledger.jsonl"
    for lines in (9, 19):
        process = torchrun(recipe, "--out", tmp_path / "killed")
        deadline = time.monotonic() + SECONDS
        while not (ledger.exists() and ledger.read_bytes().count(b"\n") >= lines):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=SECONDS)
        end_orphans(tmp_path / "killed")
    code, _, err = finish(torchrun(recipe, "--out", tmp_path / "killed"))
    assert code == 0, err
    assert contents(tmp_path / "killed") == contents(tmp_path / "straight")


def end_orphans(run_dir):
    """torchrun puts its workers into sessions of their own, so killing its group leaves them alive: end them too."""
    for folder in Path("/proc").iterdir():
        try:
            command = (folder / "cmdline").read_bytes() if folder.name.isdecimal() else b""
            if str(run_dir).encode() in command:
                os.kill(int(folder.name), signal.SIGKILL)
        except OSError:
            continue


@pytest.mark.timeout(SECONDS)
def test_a_wrong_recipe_is_said_once(tmp_path):
    code, out, err = finish(torchrun("smoke", "--out", tmp_path / "run", "-s", "pretrain.tokns=5"))
    assert code != 0
    assert out == ""
    assert err.count("unknown key stages.pretrain.tokns; did you mean 'tokens'?") == 1
