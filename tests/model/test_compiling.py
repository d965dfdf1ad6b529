"""Compiled layers compute the plain forms: what a kernel would do is nothing that torch.compile can trace."""

import pytest
import torch

from clearseek.model import log_probs
from clearseek.model.device import can_compile
from tests.model.kernel_inputs import BF16, branched, lane_sized, packed

pytestmark = pytest.mark.skipif(can_compile() is not None, reason=f"torch.compile: {can_compile()}")


@pytest.mark.parametrize("has_branches", [False, True])
@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3 mtp"])
def test_a_layer_is_traced_whole_with_kernels_or_without(name, has_branches):
    """One graph a layer (a call into the kernels would break it), forward and backward, near the eager result."""
    model, tokens = lane_sized(name), torch.arange(120).view(3, 40) % 97
    segments, parents = branched(3, 40) if has_branches else (packed(3, 40), None)

    def run():
        model.zero_grad()
        states = model(tokens, segments, BF16, parents=parents).states.flatten(0, 1)
        values = log_probs.target_log_probs(states, model.head_weight, tokens.flatten())
        values.sum().backward()
        return values.detach(), model.embedding.weight.grad.clone()

    eager = run()
    for layer in [*model.layers, *(module.layer for module in model.mtp)]:
        layer.compile(backend="aot_eager", fullgraph=True)
    for ours, wanted in zip(run(), eager, strict=True):
        assert (ours - wanted).norm() / wanted.norm() < 0.03
