"""The smoke recipe: every kind of stage on one process, each leaving what the next one needs."""

import json
import os
import subprocess
import sys

import pytest

from clearseek.config.load import load_recipe
from clearseek.config.recipe import STAGE_KINDS
from clearseek.config.shipped import find_recipe
from clearseek.ledger.log import read, verify
from clearseek.model.checkpoint import load_model


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    out = tmp_path_factory.mktemp("smoke") / "run"
    command = [sys.executable, "-m", "clearseek", "run", "smoke", "--out", str(out), "--device", "cpu"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=580, check=False, env=os.environ)
    assert result.returncode == 0, result.stderr
    return out


def test_the_recipe_shows_every_kind_of_stage():
    assert {stage.kind for stage in load_recipe(find_recipe("smoke")).stages.values()} == set(STAGE_KINDS)


@pytest.mark.timeout(600)
def test_it_runs_to_its_end(run_dir):
    stages = load_recipe(find_recipe("smoke")).stages
    records = read(run_dir / "ledger.jsonl")
    assert [r["stage"] for r in records if r["kind"] == "stage_finished"] == list(stages)
    assert records[-1]["kind"] == "run_finished"
    for file in ("ledger.jsonl", "samples.jsonl"):
        assert not verify(run_dir / file).torn
    for name, stage in stages.items():
        if stage.kind in ("pretrain", "sft", "rl", "distill"):
            load_model(run_dir / "checkpoints" / name)


def test_training_learns(run_dir):
    losses = [
        r["loss"] for r in read(run_dir / "ledger.jsonl") if r["kind"] == "step" and r["stage"] == "pretrain"
    ]
    assert losses[-1] < 1.0 < losses[0]


def test_rejection_sampling_keeps_enough_to_learn_from(run_dir):
    kept = [json.loads(line) for line in (run_dir / "data" / "reject.jsonl").read_text().splitlines()]
    assert len(kept) >= 20
    assert all(example.keys() == {"prompt", "thought", "answer"} for example in kept)


def test_the_report_has_every_number_that_was_promised(run_dir):
    report = json.loads((run_dir / "report.json").read_text())
    assert {"recipe", "seed", "machine", "stages", "totals", "rl_mismatch_max"} <= report.keys()
    assert report["rl_mismatch_max"] >= 0  # nothing at all where kernels compute
    for stage in report["stages"]:
        assert {
            "name",
            "kind",
            "wall_seconds",
            "cpu_seconds",
            "tokens",
            "flops",
            "tokens_per_second",
        } <= stage.keys()
    assert {"wall_seconds", "cpu_seconds", "flops", "peak_memory_bytes", "cost"} <= report["totals"].keys()
