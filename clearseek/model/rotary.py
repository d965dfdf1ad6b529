"""Rotary position embedding (arXiv:2104.09864) with YaRN's long-context scaling (arXiv:2309.00071).

DeepSeek turns neighbouring pairs, the other families turn the two halves of a head; both are here.
"""

import math

import torch
from torch import Tensor

from clearseek.config.model import ModelConfig, YarnScaling
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
    if config.rope_scaling is None or not config.rope_scaling.mscale_all_dim:
        return scale
    return scale * yarn_mscale(config.rope_scaling.factor, config.rope_scaling.mscale_all_dim) ** 2


def inverse_frequencies(config: ModelConfig) -> Tensor:
    """Angular frequency of each rotated pair, [rotary_dim / 2], fp32."""
    dim = config.rotary_dim
    frequencies = 1.0 / config.rope_theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    if config.rope_scaling is None:
        return frequencies
    return _yarn_frequencies(frequencies, config.rope_scaling, config.rope_theta)


def _yarn_frequencies(frequencies: Tensor, yarn: YarnScaling, theta: float) -> Tensor:
    """Blend stretched (slow) and original (fast) frequencies along YaRN's ramp."""
    dim = 2 * frequencies.numel()

    def pair_turning(rotations: float) -> float:
        length = yarn.original_max_position_embeddings
        return dim * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(pair_turning(yarn.beta_fast)), 0)
    high: float = min(math.ceil(pair_turning(yarn.beta_slow)), dim - 1)
    if low == high:
        high += 0.001  # keeps the ramp finite, as the published code does
    ramp = ((torch.arange(dim // 2, dtype=torch.float32) - low) / (high - low)).clamp(0, 1)
    return frequencies / yarn.factor * ramp + frequencies * (1 - ramp)


def rotary_table(config: ModelConfig, num_positions: int, device: torch.device | str = "cpu") -> Tensor:
    """cos and sin of every position, [2, num_positions, rotary_dim / 2] in fp32."""
    angles = torch.outer(torch.arange(num_positions, dtype=torch.float32), inverse_frequencies(config))
    scale = 1.0
    if config.rope_scaling is not None:
        yarn = config.rope_scaling
        scale = yarn_mscale(yarn.factor, yarn.mscale) / yarn_mscale(yarn.factor, yarn.mscale_all_dim)
    return torch.stack((angles.cos() * scale, angles.sin() * scale)).to(device)


def rotate(x: Tensor, cos: Tensor, sin: Tensor, norm: RMSNorm | None = None, pairs: bool = False) -> Tensor:
    """Normalise every head of x [B, T, H, D] where there is a norm, then turn the last dimensions of each.

    cos and sin [T, rotary / 2], or [B, T or 1, rotary / 2]; `pairs` turns neighbours (DeepSeek), else halves.
    """
    rotary = 2 * cos.shape[-1]
    if x.shape[-1] <= MAX_HEAD and fits(x.dtype, x, x.shape[-1], rotary):
        weight, eps = (None, 0.0) if norm is None else (norm.weight.float(), norm.eps)
        turned: Tensor = kernels.Rotate.apply(x, weight, eps, cos.flatten(0, -2), sin.flatten(0, -2), pairs)
        return turned
    x = x if norm is None else norm(x)
    cos, sin = cos.unsqueeze(-2), sin.unsqueeze(-2)
    kept, end = x.split((x.shape[-1] - rotary, rotary), dim=-1)
    end = rotate_pairs(end, cos, sin) if pairs else rotate_halves(end, cos, sin)
    return torch.cat((kept, end), dim=-1) if kept.shape[-1] else end


def rotate_pairs(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of the last dimension; cos and sin broadcast over [..., rotary_dim / 2]."""
    even, odd = x.unflatten(-1, (-1, 2)).float().unbind(-1)
    turned = torch.stack((even * cos - odd * sin, odd * cos + even * sin), dim=-1)
    return turned.flatten(-2).to(x.dtype)


def rotate_halves(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the first half of the last dimension against the second."""
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)
