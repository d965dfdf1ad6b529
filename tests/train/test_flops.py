"""Counted arithmetic against the model itself and against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from clearseek.model.decoder import Decoder
from clearseek.train.flops import forward_flops, num_parameters, training_flops
from tests.model.tiny import CONFIGS, FAMILY_CONFIGS, some_tokens, tiny_model


@pytest.mark.parametrize("name", [*CONFIGS, *FAMILY_CONFIGS])
def test_parameters_are_the_model_s(name):
    config = CONFIGS.get(name) or FAMILY_CONFIGS[name]
    with torch.device("meta"):
        model = Decoder(config)
    named = list(model.named_parameters())
    matrices = {n: p.numel() for n, p in named if p.ndim >= 2 and not n.endswith("bias")}
    mtp = sum(count for n, count in matrices.items() if n.startswith("mtp."))
    assert num_parameters(config, with_mtp=True) == sum(matrices.values())
    assert num_parameters(config) == sum(matrices.values()) - mtp


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config.num_routed_experts])
def test_active_parameters_leave_out_experts_not_chosen(name):
    config = CONFIGS[name]
    expert = 3 * config.hidden_size * config.moe_intermediate_size
    idle = config.num_routed_experts - config.num_experts_per_token
    layers = config.num_layers - config.num_dense_layers
    assert num_parameters(config) - num_parameters(config, active=True) == idle * expert * layers


@pytest.mark.parametrize("name", ["qwen3", "llama", "deepseek_v3 dense"])
def test_operations_are_those_that_torch_counts(name):
    """Dense models, every token seeing every other: nothing is skipped and nothing computed twice."""
    model = tiny_model(CONFIGS[name])
    tokens = some_tokens(model.config, rows=3, length=16)
    with FlopCounterMode(display=False) as counter:
        log_probs = model.logits(model(tokens, torch.ones_like(tokens)).states)
        forward = counter.get_total_flops()
        log_probs.sum().backward()
    expected = forward_flops(model.config, tokens.numel(), 16, causal=False)
    assert forward == expected
    total = counter.get_total_flops()
    assert total == pytest.approx(3 * expected, rel=0.01)
    causal = training_flops(model.config, tokens.numel(), 16)
    assert causal < 3 * expected


def test_multi_token_prediction_adds_its_layer_join_and_head():
    config = CONFIGS["deepseek_v3 mtp"]
    plain, more = (forward_flops(config, 10, 8, mtp=mtp) for mtp in (False, True))
    one_layer = (plain - 2 * 10 * config.vocab_size * config.hidden_size) / config.num_layers
    assert more - plain > one_layer
