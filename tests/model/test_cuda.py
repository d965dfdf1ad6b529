"""On a GPU the same numbers as on a CPU: logits, gradients, samples, and the smoke recipe from end to end."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.ledger.log import read
from clearseek.train.learner import Learner, micro_batches
from clearseek.train.supervised import mean_loss
from tests.model.tiny import CONFIGS, some_tokens, tiny_model
from tests.train.small import some_rows, stage_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
ROOT = Path(__file__).resolve().parents[2]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def whole_fp32(monkeypatch):
    """Not TF32, which keeps ten bits."""
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_are_those_of_the_cpu(name):
    model, tokens = tiny_model(CONFIGS[name]), some_tokens(CONFIGS[name], 3, 20)
    segments = torch.ones_like(tokens, dtype=torch.int32)
    with torch.no_grad():
        wanted = model.logits(model(tokens, segments).states)
        model.to(CUDA)
        ours = model.logits(model(tokens.to(CUDA), segments.to(CUDA)).states)
        rounded = model.logits(model(tokens.to(CUDA), segments.to(CUDA), torch.bfloat16).states)
    assert (ours.cpu() - wanted).abs().max() < 1e-4
    assert rounded.isfinite().all()


@pytest.mark.parametrize("name", ["deepseek_v3 mtp", "deepseek_v3 many experts", "qwen3"])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_step_is_that_of_the_cpu(name, compiled, optimizer):
    if compiled and optimizer == "muon":
        pytest.skip("one of each is enough")
    config, rows, changed = CONFIGS[name], some_rows(), []
    for device in (CPU, CUDA):
        model = tiny_model(config, std=0.05).to(device)
        learner = Learner(
            model, stage_of(config, optimizer), torch.float32, compile=compiled and device is CUDA
        )
        result = learner.step(
            micro_batches(rows, 4, device, fill=compiled), mean_loss(rows.num_counted_tokens), 1.0, len(rows)
        )
        changed.append((result, {key: value.cpu() for key, value in model.state_dict().items()}))
    (result, wanted), (theirs, ours) = changed
    assert theirs.loss == pytest.approx(result.loss, rel=1e-4)
    assert theirs.grad_norm == pytest.approx(result.grad_norm, rel=1e-3)
    tolerance = 2e-2 if optimizer == "muon" else 1e-3  # Muon orthogonalises in bf16
    for key, value in wanted.items():
        assert (ours[key] - value).abs().mean() < tolerance * value.abs().mean().clamp(min=1e-2), key


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_samples_are_those_of_the_cpu(name):
    prompts = some_tokens(CONFIGS[name], 4, 7).tolist()
    requests = [Request(tuple(prompt), key, 3, Sampling(max_tokens=12)) for key, prompt in enumerate(prompts)]
    drawn = []
    for device in (CPU, CUDA):
        engine = Engine(tiny_model(CONFIGS[name]).to(device), [1], torch.float32)
        drawn.append([one.tokens for group in engine.generate(requests) for one in group])
    assert drawn[0] == drawn[1]


@pytest.mark.timeout(600)
def test_smoke_recipe(tmp_path):
    command = [
        sys.executable,
        "-m",
        "clearseek",
        "run",
        "smoke",
        "--device",
        "cuda",
        "--out",
        tmp_path / "run",
    ]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert result.returncode == 0, result.stderr
    records = read(tmp_path / "run" / "ledger.jsonl")
    losses = [r["loss"] for r in records if r["kind"] == "step" and r["stage"] == "pretrain"]
    assert losses[-1] < losses[0] / 3
