"""Four bits a weight as ggml's `block_q4_0` has them, with a scale that is looked for.

ggml's own rounding takes the scale with which the number of largest magnitude is −8. A smaller one cuts that number
off and has the others closer; of three the one with the least squared error is taken. What is on such a grid already
has no error with the first, and stays.
"""

import numpy as np

BLOCK = 32
PARTS = (
    0.92,
    0.84,
)  # of the scale that reaches the largest number: they take 5 to 13 % off the squared error


def round_int4(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """fp32 weights [..., group] → numbers from 0 to 15, uint8 [..., group], and scales, fp16 [...].

    A weight is its number less 8, times the scale. `quantise_lanes` in `model/kernels/formats.cpp` does the same.
    """
    peak = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)
    reaching = peak / np.float32(-8)
    scale, (whole, least) = reaching, _rounded(groups, reaching)
    for part in PARTS:
        smaller = reaching * np.float32(part)
        numbers, error = _rounded(groups, smaller)
        closer = error < least
        scale, whole = np.where(closer, smaller, scale), np.where(closer, numbers, whole)
        least = np.minimum(error, least)
    return whole.astype(np.uint8), scale[..., 0].astype(np.float16)


def _rounded(groups: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers with a scale [..., 1], and the squared error of every group [..., 1], summed in fp64."""
    factor = np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)
    whole = np.clip(np.trunc(groups * factor + np.float32(8.5)), 0, 15)
    off = groups - (whole - np.float32(8)) * scale.astype(np.float16).astype(np.float32)
    return whole, np.square(off.astype(np.float64)).sum(-1, keepdims=True)


def quantize_q4_0(weights: np.ndarray) -> np.ndarray:
    """The bytes, uint8 [..., N / 32 · 18], of fp32 weights [..., N]: a scale, numbers 0 to 15 low and 16 to 31 high."""
    whole, scales = round_int4(weights.reshape(*weights.shape[:-1], -1, BLOCK))
    numbers = whole[..., : BLOCK // 2] | whole[..., BLOCK // 2 :] << 4
    blocks = np.concatenate([scales[..., None].view(np.uint8), numbers], -1)
    return blocks.reshape(*weights.shape[:-1], -1)
