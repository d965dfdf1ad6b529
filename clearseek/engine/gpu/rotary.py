"""Rotary positions on a GPU (arXiv:2104.09864), with the norm of each head that some families have.

Shapes: N rows, H heads, D head size, P rotary size.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

BEFORE, AFTER, NEVER = 0, 1, 2  # when heads are normalised


@triton.jit
def _rotate(
    x: tl.tensor, y: tl.tensor, cos: tl.tensor, sin: tl.tensor, positions: tl.tensor, weight: tl.tensor,
    eps: tl.tensor, row_stride: tl.tensor, num_heads: tl.tensor, size: tl.constexpr, rotary: tl.constexpr,
    offset: tl.constexpr, pairs: tl.constexpr, norm: tl.constexpr, heads: tl.constexpr, width: tl.constexpr,
) -> None:  # fmt: skip
    row, head, column = tl.program_id(0).to(tl.int64), tl.arange(0, heads), tl.arange(0, width)
    place = column - offset
    turns = (place >= 0) & (place < rotary)
    if pairs:
        angle, partner = place // 2, column + 1 - 2 * (place % 2)
        sign = 2.0 * (place % 2) - 1
    else:
        half: tl.constexpr = rotary // 2
        is_second = place >= half
        angle, partner = (
            tl.where(is_second, place - half, place),
            tl.where(is_second, column - half, column + half),
        )
        sign = tl.where(is_second, 1.0, -1.0)
    inside = (head < num_heads)[:, None] & (column < size)[None, :]
    turned_inside = inside & turns[None, :]
    begin = x + row * row_stride + head[:, None] * size
    own = tl.load(begin + column[None, :], mask=inside, other=0.0).to(tl.float32)
    other = tl.load(begin + partner[None, :], mask=turned_inside, other=0.0).to(tl.float32)
    if norm == 0:
        factor = 1 / tl.sqrt(tl.sum(own * own, axis=1) / size + eps)
        own *= (
            factor[:, None] * tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)[None, :]
        )
        other *= factor[:, None] * tl.load(weight + partner, mask=turns, other=0.0).to(tl.float32)[None, :]
    at = tl.load(positions + row) * (rotary // 2) + angle
    cosine = tl.load(cos + at, mask=turns, other=1.0)
    sine = tl.load(sin + at, mask=turns, other=0.0)
    turned = own * cosine[None, :] + other * (sign * sine)[None, :]
    if norm == 1:
        factor = 1 / tl.sqrt(tl.sum(turned * turned, axis=1) / size + eps)
        turned *= (
            factor[:, None] * tl.load(weight + column, mask=column < size, other=0.0).to(tl.float32)[None, :]
        )
    to = y + (row * num_heads + head[:, None]) * size + column[None, :]
    tl.store(to, turned.to(y.dtype.element_ty), mask=inside)


def rotate(
    x: Tensor,
    tables: tuple[Tensor, Tensor],
    positions: Tensor,
    norm: tuple[Tensor, float] | None = None,
    pairs: bool = False,
    first: bool = False,
    norm_after: bool = False,
) -> Tensor:
    """Heads x [N, H, D] turned by their rows' `positions` [N], as `model.rotary.rotate` does: a new tensor.

    `norm` is a weight [D] and what is added below the root. `tables` are cos and sin of every position
    [length, P / 2] in fp32; a row's heads lie behind one another.
    """
    rows, num_heads, size = x.shape
    assert x.stride(2) == 1
    assert num_heads == 1 or x.stride(1) == size
    cos, sin = tables
    rotary = 2 * cos.shape[-1]
    when = NEVER if norm is None else AFTER if norm_after else BEFORE
    weight, eps = (cos, 0.0) if norm is None else norm
    turned = torch.empty(rows, num_heads, size, dtype=x.dtype, device=x.device)
    _rotate[(rows,)](
        x, turned, cos, sin, positions, weight, eps, x.stride(0), num_heads,
        size, rotary, 0 if first else size - rotary, pairs, when,
        triton.next_power_of_2(num_heads), triton.next_power_of_2(size),
    )  # fmt: skip
    return turned
