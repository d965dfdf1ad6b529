"""What the tests of the kernels compute with: packed rows, models of whole lanes, and how near is near enough."""

import torch

from clearseek.config.model import ModelConfig
from clearseek.model.decoder import Decoder
from tests.model.tiny import CONFIGS, FAMILY_CONFIGS

BF16 = torch.bfloat16
# a rounding may choose another expert, which is no error of the kernels
EVERY_EXPERT = {"num_experts_per_token": 8, "num_expert_groups": 1, "num_limited_groups": 1}


def assert_same(ours, wanted, tolerance=0.01):
    """Relative to the largest element, or to 1: bf16 keeps eight bits."""
    scale = wanted.abs().max().clamp(min=1.0)
    assert ((ours.double() - wanted.double()).abs().max() / scale) < tolerance


def plain(function, *tensors):
    """Result and gradients of the plain form in fp64, where nothing is rounded."""
    leaves = [t.detach().double().requires_grad_() if t.is_floating_point() else t for t in tensors]
    return leaves, function(*leaves)


def compare(fused, function, *tensors, tolerance=0.01):
    """Forward and the gradient of a random projection."""
    leaves, wanted = plain(function, *tensors)
    ours = fused(*tensors)
    assert_same(ours, wanted, tolerance)
    along = torch.randn(wanted.shape, generator=torch.Generator().manual_seed(1))
    ours.backward(along.to(ours.dtype))
    wanted.backward(along.to(ours.dtype).double())
    for mine, theirs in zip(tensors, leaves, strict=True):
        if mine.requires_grad:
            assert_same(mine.grad, theirs.grad, tolerance)


def rms(x, weight):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * weight


def packed(rows, length):
    """Segments of rows: documents of 1, 2, 5, 8 … tokens, padding behind the last in the first row."""
    segments = torch.zeros(rows, length, dtype=torch.int32)
    for row in range(rows):
        place, number = 0, 1
        while place < length - 3 * (row == 0):
            size = 1 + (number * number + row) % 40
            segments[row, place : place + size] = number
            place, number = place + size, number + 1
    return segments


def branched(rows, length):
    """Segments and parents of rows: shared parts with branches of all sizes, documents that stand alone, padding."""
    segments, parents = torch.zeros(2, rows, length, dtype=torch.int32)
    for row in range(rows):
        place, number = 0, 1
        while place < length - 3 * (row == 0):
            size = 1 + (7 * number * number + row) % 23 * (1 + 2 * (number % 9 == 1))
            segments[row, place : place + size] = number
            parents[row, place : place + size] = number - number % 9 + 1 if number % 9 else number
            place, number = place + size, number + 1
    return segments, parents


def lane_sized(name, **changes):
    """A tiny model of a family whose every size is a multiple of sixteen."""
    shape = (CONFIGS | FAMILY_CONFIGS)[name].model_dump() | {
        "hidden_size": 64,
        "vocab_size": 97,
        "intermediate_size": 96,
    }
    if "deepseek" in name:
        low = None if shape["q_lora_rank"] is None else 32
        shape |= {"qk_nope_head_dim": 16, "qk_rope_head_dim": 16, "v_head_dim": 32, "kv_lora_rank": 48}
        shape |= {"q_lora_rank": low, "moe_intermediate_size": 32} | EVERY_EXPERT
    else:
        shape |= {"head_dim": 32}
    model = Decoder(ModelConfig.model_validate(shape | changes))
    model.initialise(torch.Generator().manual_seed(0))
    return model
