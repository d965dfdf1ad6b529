"""What the kernels say of a token they drew, beside what the trainer's forward pass and loss say of it."""

import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.request import Request, Sampling
from clearseek.model.kernels import library
from clearseek.model.log_probs import target_log_probs
from tests.engine.soak import FEW, weighted
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import some_tokens

pytestmark = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")

SHAPES = {
    "qwen3": {},
    "llama": {},
    "deepseek_v3": {"num_routed_experts": 0},
    "deepseek_v3 with experts": FEW,
    "deepseek_v3 yarn": FEW,
}


@pytest.mark.parametrize("name", SHAPES)
def test_in_fp32_they_differ_by_no_more_than_1e_5(name):
    """At temperature 1, as RL samples; prompts up to and beyond a block's end, answers decoded many tokens at once."""
    shape = lane_sized(name.removesuffix(" with experts"), max_position_embeddings=512, **SHAPES[name])
    model = weighted(shape, 1).requires_grad_(False)
    engine, worst = Engine(model, (), torch.float32), 0.0
    prompts = [tuple(some_tokens(model.config, 1, length, length)[0].tolist()) for length in (1, 20, 70)]
    requests = [Request(prompt, 7, 4, Sampling(max_tokens=100)) for prompt in prompts]
    for request, group in zip(requests, engine.generate(requests), strict=True):
        for completion in group:
            row = torch.tensor([[*request.prompt, *completion.tokens]])
            states = model(row, torch.ones_like(row), torch.float32, 0).states[
                0, len(request.prompt) - 1 : -1
            ]
            targets = torch.tensor(completion.tokens)
            wanted = target_log_probs(states, model.head_weight, targets)
            worst = max(worst, (wanted - torch.tensor(completion.log_probs)).abs().max().item())
    assert isinstance(engine.runner, FusedRunner)
    print(f"{name}: {worst:.1e}")
    assert worst <= 1e-5
