"""The arithmetic of weights that are published quantised: block-fp8 and MXFP4 into floats, and fp8 back.

Pure functions on tensors; which tensors of a checkpoint they are for is decided in `sources`.
Shapes: N rows, K columns, b and c rows and columns of a block.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FP8_MAX = 448.0  # of e4m3 without infinities
FP4_VALUES = (
    0.0,
    0.5,
    1.0,
    1.5,
    2.0,
    3.0,
    4.0,
    6.0,
)  # of e2m1, by its lower three bits; the fourth is the sign

Block = tuple[int, int]


def num_blocks(shape: tuple[int, ...], block: Block) -> tuple[int, ...]:
    """The shape of the scales of a weight [..., N, K]: [..., ⌈N / b⌉, ⌈K / c⌉]."""
    *leading, rows, columns = shape
    return (*leading, -(-rows // block[0]), -(-columns // block[1]))


def dequantise_block_fp8(weight: Tensor, scales: Tensor, block: Block) -> Tensor:
    """The weight [..., N, K] in fp32 of fp8 values and scales [..., ⌈N / b⌉, ⌈K / c⌉], one for each block.

    `weight * scale`, as the description of DeepSeek-V3's published weights has it (README_WEIGHTS.md, "FP8
    Weight Documentation"): the stored scale is already the inverse of the one that it was divided by.
    """
    return weight.float().mul_(_spread(scales.float(), weight.shape, block))


def quantise_block_fp8(weight: Tensor, block: Block) -> tuple[Tensor, Tensor]:
    """Values in fp8 e4m3 and fp32 scales of a weight [N, K]: a block's largest magnitude becomes 448.

    A block of zeros has the scale 1. Source: as `dequantise_block_fp8`.
    """
    rows, columns = weight.shape
    padded = F.pad(weight.float(), (0, -columns % block[1], 0, -rows % block[0]))
    blocks = padded.unflatten(0, (-1, block[0])).unflatten(2, (-1, block[1]))
    scales = blocks.abs().amax(dim=(1, 3)) / FP8_MAX
    scales = torch.where(scales == 0, torch.ones_like(scales), scales)
    scaled = weight.float() / _spread(scales, weight.shape, block)
    return scaled.clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn), scales


def dequantise_mxfp4(blocks: Tensor, scales: Tensor) -> Tensor:
    """Values [..., G · 2 · B] in fp32 of G blocks of bytes [..., G, B], two values each, low half first.

    `scales` [..., G] are e8m0: a block's values are times 2 to the power of its byte - 127,
    and 255 makes them NaN.
    Source: OCP Microscaling Formats (MX) v1.0, §5.2 and §6.3, in the layout of gpt-oss's weights.
    """
    values = torch.tensor([*FP4_VALUES, *(-value for value in FP4_VALUES)], device=blocks.device)
    pairs = torch.stack((blocks & 0x0F, blocks >> 4), dim=-1).flatten(-2)
    powers = scales.view(torch.float8_e8m0fnu).float()
    return (values[pairs.int()] * powers.unsqueeze(-1)).flatten(-2)


def _spread(scales: Tensor, shape: tuple[int, ...], block: Block) -> Tensor:
    """One scale for every element of a weight of `shape`."""
    rows = scales.repeat_interleave(block[0], dim=-2)[..., : shape[-2], :]
    return rows.repeat_interleave(block[1], dim=-1)[..., : shape[-1]]
