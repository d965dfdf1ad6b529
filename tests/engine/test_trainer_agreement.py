"""What the kernels say of a token they drew, beside what the trainer's forward pass and loss say of it."""

import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.request import Request, Sampling
from clearseek.model.decoder import Decoder
from clearseek.model.kernels import library
from clearseek.model.log_probs import target_log_probs
from tests.engine.soak import FEW, weighted
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import some_tokens

pytestmark = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")

UNGROUPED = {
    "num_routed_experts": 4, "num_experts_per_token": 2, "num_expert_groups": 1, "num_limited_groups": 1,
    "num_dense_layers": 1,
}  # fmt: skip
SHAPES = {
    "qwen3": {},
    "llama": {},
    "deepseek_v3": {"num_routed_experts": 0},
    "deepseek_v3 with experts": FEW,
    "deepseek_v3 yarn": FEW,
}


EXACT = {
    "qwen3": {},
    "llama": {},
    "deepseek_v3": {"num_routed_experts": 0},
    "deepseek_v3 with experts": UNGROUPED,
    "deepseek_v3 without query latent": UNGROUPED,
    "deepseek_v3 yarn": FEW,
    "deepseek_v3 many experts": {"num_experts_per_token": 3, "router_scores": "softmax"},
    "qwen3 with biases": {"qkv_bias": True, "out_bias": True},
    "qwen3 with norms on what layers add": {"sandwich_norm": True},
    "qwen3 with norms behind the turn": {"qk_norm": "after_rotary"},
    "qwen3 with scaled values": {"value_scale": 0.7},
    "deepseek_v3 with norms on what layers add": FEW | {"sandwich_norm": True},
    "deepseek_v3 with routed experts alone": FEW | {"num_shared_experts": 0},
}


def differences(model: Decoder, dtype: torch.dtype) -> torch.Tensor:
    """What the engine reports of every token that it draws − what the trainer computes of it, row by row.

    At temperature 1, as RL samples; prompts up to and beyond a block's end, answers decoded many tokens at once.
    """
    engine, found = Engine(model, (), dtype), []
    prompts = [tuple(some_tokens(model.config, 1, length, length)[0].tolist()) for length in (1, 20, 70)]
    requests = [Request(prompt, 7, 4, Sampling(max_tokens=100)) for prompt in prompts]
    for request, group in zip(requests, engine.generate(requests), strict=True):
        for completion in group:
            row = torch.tensor([[*request.prompt, *completion.tokens]])
            states = model(row, torch.ones_like(row), dtype, 0).states[0, len(request.prompt) - 1 : -1]
            wanted = target_log_probs(states, model.head_weight, torch.tensor(completion.tokens))
            found.append(torch.tensor(completion.log_probs) - wanted)
    assert isinstance(engine.runner, FusedRunner)
    return torch.cat(found)


@pytest.mark.parametrize("name", SHAPES)
def test_in_fp32_they_differ_by_no_more_than_1e_5(name):
    shape = lane_sized(name.removesuffix(" with experts"), max_position_embeddings=512, **SHAPES[name])
    assert differences(weighted(shape, 1).requires_grad_(False), torch.float32).abs().max() <= 1e-5


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name", EXACT)
def test_in_bf16_no_bit_differs(name, num_threads):
    """Where latents are attended to in the absorbed form, as reinforcement learning does."""
    shape = lane_sized(name.split(" with ")[0], max_position_embeddings=512, **EXACT[name])
    model = weighted(shape, 1).requires_grad_(False)
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norms and biases that say something
            generator = torch.Generator().manual_seed(len(key))
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    model.absorb_latents(True)
    torch.set_num_threads(num_threads)
    differing = differences(model, torch.bfloat16).count_nonzero()
    torch.set_num_threads(1)
    assert differing == 0
