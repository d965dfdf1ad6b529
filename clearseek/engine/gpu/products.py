"""Products of rows with matrices on a GPU: plain, int8, int4 and fp8 weights; one matrix, one a head, or one an expert.

Tiles and the stretches of inputs that are summed apart follow from a matrix's shape alone, never from how many rows
there are; nothing is added in an order that can vary. So a row's bits don't depend on its batch.

Shapes: N rows, E matrices, O outputs, I inputs.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from clearseek.engine.formats import FP8_BLOCK
from clearseek.engine.gpu.dot import dot
from clearseek.engine.gpu.weights import FP8, FP8_MOST, Weight

TILE_ROWS = 64
_TILE_OUTPUTS = 64
_PROGRAMS = 132  # that run at once: an H200 has so many multiprocessors
_FEWEST_INPUTS = 512  # that are worth a sum of their own
_PLAIN, _INT8, _INT4, _FP8 = range(4)
_KINDS = {"float32": _PLAIN, "bfloat16": _PLAIN, "int8": _INT8, "int4": _INT4, "fp8": _FP8}


@dataclass(frozen=True)
class Tiles:
    """Rows in tiles that have a matrix each: int32 [tiles], and which row of x each of them is [N], where it isn't it.

    A tile is `counts` rows from `firsts` on, none where that is zero, times matrix `matrices`.
    """

    firsts: Tensor
    counts: Tensor
    matrices: Tensor
    rows: Tensor | None = None


@triton.jit
def _part(
    x: tl.tensor, x_scales: tl.tensor, weight: tl.tensor, scales: tl.tensor, source: tl.tensor, is_row: tl.tensor,
    output: tl.tensor, is_output: tl.tensor, begin: tl.tensor, end: tl.tensor, wide: tl.constexpr,
    inputs: tl.constexpr, kind: tl.constexpr, group: tl.constexpr, step: tl.constexpr, tile_rows: tl.constexpr,
    tile_outputs: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """The sum over some inputs for a tile; `source` are the rows' places in x, `weight` and `scales` one matrix's."""
    total = tl.zeros((tile_rows, tile_outputs), tl.float32)
    groups: tl.constexpr = (inputs + group - 1) // group
    for first in range(begin, end, step):
        if kind == 2:
            half: tl.constexpr = step // 2
            column = first + tl.arange(0, half)
            mask = is_output[:, None]
            packed = tl.load(
                weight + output[:, None] * (inputs // 2) + first // 2 + tl.arange(0, half)[None, :], mask=mask
            )
            low = tl.load(x + source[:, None] + column[None, :], mask=is_row[:, None], other=0.0)
            high = tl.load(x + source[:, None] + half + column[None, :], mask=is_row[:, None], other=0.0)
            small, large = (packed & 15).to(tl.float32) - 8, (packed >> 4).to(tl.float32) - 8
            summed = dot(low, tl.trans(small.to(low.dtype))) + dot(high, tl.trans(large.to(low.dtype)))
        else:
            column = first + tl.arange(0, step)
            inside = column < inputs
            own = tl.load(
                x + source[:, None] + column[None, :], mask=is_row[:, None] & inside[None, :], other=0.0
            )
            theirs = tl.load(
                weight + output[:, None] * inputs + column[None, :],
                mask=is_output[:, None] & inside[None, :],
                other=0.0,
            )
            if kind == 1:
                theirs = (theirs.to(tl.float32) - 128).to(own.dtype)
            elif wide:
                own, theirs = own.to(tl.float32), theirs.to(tl.float32)
            summed = dot(own, tl.trans(theirs))
        if kind == 0:
            total += summed
        elif kind == 3:
            factor = tl.load(scales + output // group * groups + first // group, mask=is_output, other=0.0)
            row_factor = tl.load(
                x_scales + source // inputs * groups + first // group, mask=is_row, other=0.0
            )
            total += summed * row_factor[:, None] * factor[None, :]
        else:
            factor = tl.load(scales + output * groups + first // group, mask=is_output, other=0.0).to(
                tl.float32
            )
            total += summed * factor[None, :]
    return total


@triton.jit
def _product(
    x: tl.tensor, x_scales: tl.tensor, weight: tl.tensor, scales: tl.tensor, y: tl.tensor, firsts: tl.tensor,
    counts: tl.tensor, matrices: tl.tensor, rows: tl.tensor, num_rows: tl.tensor, outputs: tl.tensor,
    scale_rows: tl.tensor, x_row: tl.tensor, x_matrix: tl.tensor, y_row: tl.tensor, y_matrix: tl.tensor,
    y_stretch: tl.tensor, inputs: tl.constexpr, stretch: tl.constexpr, stretches: tl.constexpr, kind: tl.constexpr,
    group: tl.constexpr, wide: tl.constexpr, step: tl.constexpr, has_tiles: tl.constexpr, gathers: tl.constexpr,
    tile_rows: tl.constexpr, tile_outputs: tl.constexpr,
) -> None:  # fmt: skip
    tile, matrix, index = tl.program_id(0), tl.program_id(2) // stretches, tl.program_id(2) % stretches
    first, count = tile * tile_rows, tl.minimum(num_rows - tile * tile_rows, tile_rows)
    from_matrix = matrix
    if has_tiles:
        first, count, from_matrix = tl.load(firsts + tile), tl.load(counts + tile), tl.load(matrices + tile)
    if count == 0:
        return
    place = tl.arange(0, tile_rows)
    row, is_row = first + place, place < count
    source = row.to(tl.int64)
    if gathers:
        source = tl.load(rows + row, mask=is_row, other=0).to(tl.int64)
    output = tl.program_id(1) * tile_outputs + tl.arange(0, tile_outputs)
    is_output = output < outputs
    packed: tl.constexpr = inputs // 2 if kind == 2 else inputs
    groups: tl.constexpr = (inputs + group - 1) // group
    begin = index * stretch
    total = _part(
        x, x_scales, weight + from_matrix.to(tl.int64) * outputs * packed,
        scales + from_matrix.to(tl.int64) * scale_rows * groups, source * x_row + matrix * x_matrix,
        is_row, output, is_output, begin, tl.minimum(begin + stretch, inputs), wide,
        inputs, kind, group, step, tile_rows, tile_outputs,
    )  # fmt: skip
    to = y + index * y_stretch + row.to(tl.int64)[:, None] * y_row + matrix * y_matrix + output[None, :]
    tl.store(to, total.to(y.dtype.element_ty), mask=is_row[:, None] & is_output[None, :])


@triton.jit
def _sum(
    parts: tl.tensor, y: tl.tensor, size: tl.tensor, stretches: tl.constexpr, columns: tl.constexpr,
) -> None:  # fmt: skip
    """Sums [stretches, size], added in order."""
    column = tl.program_id(0).to(tl.int64) * columns + tl.arange(0, columns)
    inside = column < size
    total = tl.zeros((columns,), tl.float32)
    for index in range(stretches):
        total += tl.load(parts + index * size + column, mask=inside, other=0.0)
    tl.store(y + column, total.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _round_fp8(
    x: tl.tensor, numbers: tl.tensor, scales: tl.tensor, most: tl.tensor, size: tl.constexpr, block: tl.constexpr,
) -> None:  # fmt: skip
    """A row's block of `size` columns in all, in e4m3 by its largest number."""
    row, index = tl.program_id(0).to(tl.int64), tl.program_id(1)
    column = index * block + tl.arange(0, block)
    inside = column < size
    number = tl.load(x + row * size + column, mask=inside, other=0.0).to(tl.float32)
    scale = tl.max(tl.abs(number), axis=0) / most
    scale = tl.where(scale > 0, scale, 1.0)
    rounded = tl.minimum(tl.maximum(number / scale, -most), most)
    tl.store(numbers + row * size + column, rounded.to(numbers.dtype.element_ty), mask=inside)
    tl.store(scales + row * tl.cdiv(size, block) + index, scale)


def round_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """Rows [N, I] in e4m3, and the scale of each 128 columns [N, I / 128] in fp32, rounded up."""
    rows, size = x.shape
    numbers = torch.empty(rows, size, dtype=FP8, device=x.device)
    scales = torch.empty(rows, triton.cdiv(size, FP8_BLOCK), device=x.device)
    _round_fp8[scales.shape](x.contiguous(), numbers, scales, FP8_MOST, size, FP8_BLOCK)
    return numbers, scales


def stretch_of(outputs: int, inputs: int, matrices: int) -> int:
    """How many inputs are summed by one program: fewer where a matrix has too few outputs to go round."""
    programs = triton.cdiv(outputs, _TILE_OUTPUTS) * matrices
    stretches = max(min(_PROGRAMS // programs, inputs // _FEWEST_INPUTS), 1)
    return triton.cdiv(triton.cdiv(inputs, stretches), FP8_BLOCK) * FP8_BLOCK


def product(x: Tensor, weight: Weight, dtype: torch.dtype | None = None) -> Tensor:
    """x [N, I] · a weight [1, O, I] in `dtype`, by default that of x: [N, O]."""
    return _multiply(x, weight, dtype or x.dtype, None, len(x), x.stride(0), 0, 1)


def product_by_head(x: Tensor, weight: Weight) -> Tensor:
    """x [N, E, I] · a weight [E, O, I], head by head: [N, E, O]."""
    assert x.stride(2) == 1
    count = x.shape[1]
    if weight.form.name == "fp8":  # rounded rows lie behind one another
        x = x.contiguous()
    return _multiply(x, weight, x.dtype, None, len(x), x.stride(0), x.stride(1), count).view(
        len(x), count, -1
    )


def product_by_tile(x: Tensor, weight: Weight, tiles: Tiles, num_rows: int) -> Tensor:
    """Rows of x [..., I] · the matrix of their tile, of a weight [E, O, I]: [num_rows, O]."""
    return _multiply(x, weight, x.dtype, tiles, num_rows, x.stride(0), 0, 1)


def _multiply(
    x: Tensor, weight: Weight, dtype: torch.dtype, tiles: Tiles | None,
    num_rows: int, x_row: int, x_matrix: int, matrices: int,
) -> Tensor:  # fmt: skip
    kind, outputs, inputs, device = _KINDS[weight.form.name], weight.outputs, weight.inputs, x.device
    stretch = stretch_of(outputs, inputs, len(weight.data))
    stretches = triton.cdiv(inputs, stretch)
    assert x.stride(-1) == 1
    wide = kind == _PLAIN and torch.float32 in (x.dtype, weight.data.dtype)
    y = torch.empty(num_rows, matrices * outputs, dtype=dtype, device=device)
    parts = y if stretches == 1 else torch.empty(stretches, *y.shape, device=device)
    x_scales, scales = x, weight.data if weight.scales is None else weight.scales
    if kind == _FP8:
        numbers, x_scales = round_fp8(x.reshape(-1, inputs))
        x, x_row, x_matrix = numbers, inputs * matrices, inputs * (matrices > 1)
    group = {_PLAIN: 1, _FP8: FP8_BLOCK}.get(kind, weight.form.group)
    step = 64 if kind == _PLAIN else group
    num_tiles = triton.cdiv(num_rows, TILE_ROWS) if tiles is None else len(tiles.firsts)
    given = (y, y, y) if tiles is None else (tiles.firsts, tiles.counts, tiles.matrices)
    rows = None if tiles is None else tiles.rows
    if num_rows:
        _product[(num_tiles, triton.cdiv(outputs, _TILE_OUTPUTS), matrices * stretches)](
            x, x_scales, weight.data, scales, parts, *given, given[0] if rows is None else rows,
            num_rows, outputs, scales.shape[1],
            x_row, x_matrix, matrices * outputs, outputs, y.numel(),
            inputs, stretch, stretches, kind, group, wide, step, tiles is not None, rows is not None,
            TILE_ROWS, _TILE_OUTPUTS,
        )  # fmt: skip
        if stretches > 1:
            _sum[(triton.cdiv(y.numel(), 1024),)](parts, y, y.numel(), stretches, 1024)
    return y
