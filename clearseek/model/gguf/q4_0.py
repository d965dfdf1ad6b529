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
    scale, (whole, least) = reaching, _rounded(groups, reaching, _halved(reaching))
    for part in PARTS:
        smaller = reaching * np.float32(part)
        numbers, error = _rounded(groups, smaller, _halved(smaller))
        closer = error < least
        scale, whole = np.where(closer, smaller, scale), np.where(closer, numbers, whole)
        least = np.minimum(error, least)
    return whole.astype(np.uint8), scale[..., 0].astype(np.float16)


def round_int4_in_bytes(groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same of [..., outputs, groups, group] with scales of a byte, and their units, fp32 [..., outputs].

    A scale, int8 [..., outputs, groups], is in units of its output. Numbers are chosen for the scale that is kept.
    """
    peak = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)
    units = np.abs(peak).max((-2, -1)) / np.float32(8) / np.float32(127)
    each = units[..., None, None]
    reaching = peak / np.float32(-8)
    code = _in_units(reaching, each)
    whole, least = _rounded(groups, code * each, code * each)
    for part in PARTS:
        other = _in_units(reaching * np.float32(part), each)
        numbers, error = _rounded(groups, other * each, other * each)
        closer = error < least
        code, whole = np.where(closer, other, code), np.where(closer, numbers, whole)
        least = np.minimum(error, least)
    return whole.astype(np.uint8), code[..., 0].astype(np.int8), units


def _halved(scale: np.ndarray) -> np.ndarray:
    return scale.astype(np.float16).astype(np.float32)


def _in_units(scale: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Whole numbers, as fp32; none that there is becomes 0."""
    code = np.clip(np.rint(scale * _inverse(units)), -127, 127)
    return np.where((code == 0) & (scale != 0), np.copysign(np.float32(1), scale), code).astype(np.float32)


def _inverse(scale: np.ndarray) -> np.ndarray:
    return np.divide(np.float32(1), scale, out=np.zeros_like(scale), where=scale != 0)


def _rounded(groups: np.ndarray, scale: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers with a scale [..., 1], and every group's squared error [..., 1] with what is kept of it, in fp64."""
    whole = np.clip(np.trunc(groups * _inverse(scale) + np.float32(8.5)), 0, 15)
    off = groups - (whole - np.float32(8)) * kept
    return whole, np.square(off.astype(np.float64)).sum(-1, keepdims=True)


def quantize_q4_0(weights: np.ndarray) -> np.ndarray:
    """The bytes, uint8 [..., N / 32 · 18], of fp32 weights [..., N]: a scale, numbers 0 to 15 low and 16 to 31 high."""
    whole, scales = round_int4(weights.reshape(*weights.shape[:-1], -1, BLOCK))
    numbers = whole[..., : BLOCK // 2] | whole[..., BLOCK // 2 :] << 4
    blocks = np.concatenate([scales[..., None].view(np.uint8), numbers], -1)
    return blocks.reshape(*weights.shape[:-1], -1)
