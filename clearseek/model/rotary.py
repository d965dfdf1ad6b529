"""Rotary position embedding (arXiv:2104.09864) with the families' ways of stretching it to longer contexts.

DeepSeek turns neighbouring pairs, the other families turn the two halves of a head; both are here.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from clearseek.config.model import ModelConfig, RopeScaling
from clearseek.model.kernels import functions as kernels
from clearseek.model.kernels.library import MAX_HEAD, fits
from clearseek.model.layers import RMSNorm


def yarn_mscale(factor: float, mscale: float) -> float:
    """The attention temperature of YaRN: 0.1 · mscale · ln(factor) + 1."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def softmax_scale(config: ModelConfig) -> float:
    """1/√(head size), times YaRN's squared temperature where DeepSeek applies it (V3 inference code)."""
    if not config.is_latent:
        return config.head_size**-0.5
    scale = ((config.qk_nope_head_dim or 0) + config.rotary_dim) ** -0.5
    scaling = config.rope_scaling
    if scaling is None or scaling.kind != "yarn" or not scaling.mscale_all_dim:
        return scale
    return scale * yarn_mscale(scaling.factor, scaling.mscale_all_dim) ** 2


def inverse_frequencies(config: ModelConfig, theta: float | None = None) -> Tensor:
    """Angular frequency of each rotated pair, [rotary_dim / 2], fp32; `theta` instead of the config's own."""
    dim, scaling = config.rotary_dim, config.rope_scaling
    theta = theta or config.rope_theta
    if scaling is not None and scaling.kind == "ntk_alpha":
        theta = theta * scaling.alpha ** (dim / (dim - 2))
    frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if scaling is None or scaling.kind == "ntk_alpha":
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    return (_yarn_frequencies if scaling.kind == "yarn" else _llama3_frequencies)(frequencies, scaling, theta)


def _yarn_frequencies(frequencies: Tensor, yarn: RopeScaling, theta: float) -> Tensor:
    """Blend stretched (slow) and original (fast) frequencies along YaRN's ramp."""
    dim, length = 2 * frequencies.numel(), yarn.original_max_position_embeddings or 0

    def pair_turning(rotations: float) -> float:
        return dim * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low, high = pair_turning(yarn.beta_fast), pair_turning(yarn.beta_slow)
    if yarn.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001  # keeps the ramp finite, as the published code does
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return frequencies / yarn.factor * ramp + frequencies * (1 - ramp)


def _llama3_frequencies(frequencies: Tensor, scaling: RopeScaling, theta: float) -> Tensor:
    """Llama 3.1: waves longer than the first context are stretched, short ones kept, those between blended."""
    turns = (scaling.original_max_position_embeddings or 0) * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return frequencies / scaling.factor * (1 - kept) + frequencies * kept


def rotary_table(
    config: ModelConfig, num_positions: int, device: torch.device | str = "cpu", theta: float | None = None
) -> Tensor:
    """cos and sin of every position, [2, num_positions, rotary_dim / 2] in fp32."""
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), inverse_frequencies(config, theta))
    scale, scaling = 1.0, config.rope_scaling
    if scaling is not None and scaling.kind == "yarn":
        scale = yarn_mscale(scaling.factor, scaling.mscale) / yarn_mscale(
            scaling.factor, scaling.mscale_all_dim
        )
        scale = scaling.attention_factor or scale
    return torch.stack((angles.cos() * scale, angles.sin() * scale)).to(device)


def query_growth(config: ModelConfig, place: Tensor) -> Tensor | None:
    """What queries at positions `place` [B or 1, T] are multiplied with, [B or 1, T, 1, 1]; None where by one."""
    scaling = config.rope_scaling
    if scaling is None or not scaling.query_beta:
        return None
    times = torch.floor(place.float() / (scaling.original_max_position_embeddings or 1))
    return (1 + scaling.query_beta * torch.log1p(times))[..., None, None]


class Turn(NamedTuple):
    """What a layer's attention needs of the positions: see `rotate`, and `query_growth`."""

    cos: Tensor
    sin: Tensor
    growth: Tensor | None = None


def rotate(
    x: Tensor,
    turn: Turn,
    norm: RMSNorm | None = None,
    pairs: bool = False,
    first: bool = False,
    norm_after: bool = False,
) -> Tensor:
    """Normalise every head of x [B, T, H, D] where there is a norm, then turn the last dimensions of each.

    cos and sin [T, rotary / 2], or [B, T or 1, rotary / 2]; `pairs` turns neighbours (DeepSeek), else halves;
    `first` turns the first dimensions instead of the last; `norm_after` turns before it normalises.
    """
    if norm is not None and norm_after:
        return norm(rotate(x, turn, None, pairs, first))
    cos, sin = turn[:2]
    rotary = 2 * cos.shape[-1]
    is_end = not first or rotary == x.shape[-1]
    if is_end and x.shape[-1] <= MAX_HEAD and fits(x.dtype, x, x.shape[-1], rotary):
        weight, eps = (None, 0.0) if norm is None else (norm.weight.float(), norm.eps)
        turned: Tensor = kernels.Rotate.apply(x, weight, eps, cos.flatten(0, -2), sin.flatten(0, -2), pairs)
        return turned
    x = x if norm is None else norm(x)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    kept = x.shape[-1] - rotary
    parts = x.split((rotary, kept) if first else (kept, rotary), dim=-1)
    kept_part, part = parts[::-1] if first else parts
    part = rotate_pairs(part, cos, sin) if pairs else rotate_halves(part, cos, sin)
    if not kept:
        return part
    return torch.cat((part, kept_part) if first else (kept_part, part), dim=-1)


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of the last dimension; cos and sin broadcast over [..., rotary_dim / 2]."""
    even, odd = x.unflatten(-1, (-1, 2)).float().unbind(-1)
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first half of the last dimension against the second."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
