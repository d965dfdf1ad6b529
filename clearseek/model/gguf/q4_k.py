"""Quantisation to Q4_K, which the gguf library reads but does not write.

A super-block is 256 weights in eight sub-blocks of 32. A weight is d·scale·q - dmin·minimum with q in 0..15; scale
and minimum are 6-bit numbers of the sub-block, d and dmin fp16 numbers of the super-block (ggml's `block_q4_K`).
"""

import numpy as np

BLOCK, SUB_BLOCK = 256, 32
BLOCK_BYTES = 144  # d, dmin: 4; eight scales and minima of 6 bits: 12; 256 weights of 4 bits: 128
_LEVELS, _SCALE_LEVELS = 15, 63
_TRIALS = np.linspace(-0.9, 0.9, 7, dtype=np.float32)  # how far from the plain range a scale is looked for
_ROWS_AT_ONCE = 512  # super-blocks; bounds the memory of the trials


def quantize_q4_k(weights: np.ndarray) -> np.ndarray:
    """The bytes, uint8 [..., N / 256 · 144], of fp32 weights [..., N]; N is a multiple of 256."""
    blocks = np.ascontiguousarray(weights, np.float32).reshape(-1, BLOCK // SUB_BLOCK, SUB_BLOCK)
    parts = [
        _quantize_blocks(blocks[start : start + _ROWS_AT_ONCE])
        for start in range(0, len(blocks), _ROWS_AT_ONCE)
    ]
    return np.concatenate(parts).reshape(*weights.shape[:-1], -1)


def _quantize_blocks(blocks: np.ndarray) -> np.ndarray:
    """Bytes [B, 144] of super-blocks [B, 8, 32]."""
    scale, minimum = _fit(blocks)
    d, scale_levels = _six_bits(scale)
    dmin, minimum_levels = _six_bits(minimum)
    step = (d * scale_levels)[..., None]
    offset = (dmin * minimum_levels)[..., None]
    levels = np.rint(_divide(blocks + offset, step)).clip(0, _LEVELS).astype(np.uint8)
    return np.concatenate(
        [_half(d), _half(dmin), _pack_scales(scale_levels, minimum_levels), _pack_levels(levels)], axis=1
    )


def _fit(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scale and minimum, both [B, 8] and at least 0, of each sub-block.

    Of several scales near the range divided by 15 the one whose weighted least squares line errs least: large
    weights count more, as in ggml's reference.
    """
    importance = np.sqrt(np.mean(x * x, axis=-1, keepdims=True)) + np.abs(x)
    low = np.minimum(x.min(axis=-1, keepdims=True), 0)
    span = x.max(axis=-1, keepdims=True) - low
    best_scale, best_low = span / _LEVELS, low
    levels = np.rint(_divide(x - low, best_scale)).clip(0, _LEVELS)
    best_error = _error(x, levels, best_scale, best_low, importance)
    for trial in _TRIALS:
        levels = np.rint(_divide((_LEVELS + trial) * (x - low), span)).clip(0, _LEVELS)
        scale, line_low = _line(x, levels, importance)
        error = _error(x, levels, scale, line_low, importance)
        better = (error < best_error) & (scale > 0)
        best_scale = np.where(better, scale, best_scale)
        best_low = np.where(better, line_low, best_low)
        best_error = np.where(better, error, best_error)
    return best_scale[..., 0], -best_low[..., 0]


def _line(x: np.ndarray, levels: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept, [B, 8, 1], of the weighted line through (level, x); the intercept is at most 0."""
    w, wl, wll = (_total(weight * levels**power) for power in range(3))
    wx, wxl = _total(weight * x), _total(weight * x * levels)
    determinant = w * wll - wl * wl
    slope = _divide(w * wxl - wx * wl, determinant)
    low = _divide(wll * wx - wl * wxl, determinant)
    return np.where(low > 0, _divide(wxl, wll), slope), np.minimum(low, 0)


def _error(
    x: np.ndarray, levels: np.ndarray, scale: np.ndarray, low: np.ndarray, weight: np.ndarray
) -> np.ndarray:
    return _total(weight * (scale * levels + low - x) ** 2)


def _total(x: np.ndarray) -> np.ndarray:
    return x.sum(axis=-1, keepdims=True)


def _six_bits(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values [B, 8] at least 0 as one unit [B, 1], rounded to fp16, times levels of 6 bits [B, 8]."""
    with np.errstate(over="ignore"):
        unit = (values.max(axis=-1, keepdims=True) / _SCALE_LEVELS).astype(np.float16).astype(np.float32)
    return unit, np.rint(_divide(values, unit)).clip(0, _SCALE_LEVELS).astype(np.uint8)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a / b, and 0 where b is 0."""
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape), np.float32), where=b != 0)


def _half(unit: np.ndarray) -> np.ndarray:
    return unit.astype("<f2").view(np.uint8)


def _pack_scales(scales: np.ndarray, minima: np.ndarray) -> np.ndarray:
    """Twelve bytes [B, 12]: sub-blocks 0 to 3 in six bits of eight bytes, whose upper two take parts of 4 to 7."""
    first = (scales[:, :4] & 63) | (scales[:, 4:] >> 4 << 6)
    second = (minima[:, :4] & 63) | (minima[:, 4:] >> 4 << 6)
    rest = (scales[:, 4:] & 15) | (minima[:, 4:] & 15) << 4
    return np.concatenate([first, second, rest], axis=1).astype(np.uint8)


def _pack_levels(levels: np.ndarray) -> np.ndarray:
    """128 bytes [B, 128] of levels [B, 8, 32]: sub-blocks in pairs, the first in the lower half of each byte."""
    return (levels[:, 0::2] | levels[:, 1::2] << 4).reshape(len(levels), -1)
