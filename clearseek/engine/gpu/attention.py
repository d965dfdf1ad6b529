"""Paged attention on a GPU: new tokens of many sequences over a cache in blocks, decoding and prompts alike.

Online softmax (arXiv:2205.14135) over stretches of keys of a fixed length, which are merged in order (as in
"Flash-Decoding"). Stretches begin at fixed positions and tiles have one height, so a row's bits depend neither on what
else is in the batch nor on how a prompt was cut. Latent attention in its absorbed form (arXiv:2405.04434) is the same
with one key for all heads, of two parts, whose first is the value too.

Shapes: N rows (new tokens), H query heads in G groups, D key size, P size of a key's second part, V value size.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.gpu.dot import dot

TILE = 64  # query heads of one group, over all tokens of a tile
STRETCH = 512  # keys whose sums are made apart and merged with the others'
_PART_BYTES = 256 << 20  # of sums that wait to be merged


@dataclass(frozen=True)
class Rows:
    """Where each row stands: `positions` and `slots` [N], the slots' blocks `tables` [slots, blocks]; int32 and int64.

    `firsts` and `counts` [tiles] int32: rows of one slot behind one another, taken together; no row where the count is
    zero.
    """

    positions: Tensor
    slots: Tensor
    tables: Tensor
    firsts: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Heads:
    """How queries see keys: their `scale`, the positions in a `window` (0: all), scores of no position `sinks` [H]."""

    scale: float
    window: int = 0
    sinks: Tensor | None = None


def tokens_per_tile(num_heads: int, num_groups: int) -> int:
    """Rows of a sequence that a tile takes at most."""
    return TILE // min(triton.next_power_of_2(num_heads // num_groups), TILE)


@triton.jit
def _load_rows(
    base: tl.tensor, offset: tl.tensor, column: tl.tensor, size: tl.constexpr, known: tl.tensor
) -> tl.tensor:
    """`size` numbers from each offset [R] on; zeros where it is not `known` and up to the columns' room."""
    return tl.load(
        base + offset[:, None] + column[None, :], mask=known[:, None] & (column < size)[None, :], other=0.0
    )


@triton.jit
def _stretch(
    query: tl.tensor, more_query: tl.tensor, keys: tl.tensor, more_keys: tl.tensor, values: tl.tensor,
    tables: tl.tensor, slots: tl.tensor, positions: tl.tensor, firsts: tl.tensor, counts: tl.tensor, parts: tl.tensor,
    peaks: tl.tensor, sums: tl.tensor, scale: tl.tensor, window: tl.tensor, num_heads: tl.tensor,
    table_width: tl.tensor, query_row: tl.tensor, more_query_row: tl.tensor, key_row: tl.tensor, value_row: tl.tensor,
    num_stretches: tl.tensor, group: tl.constexpr, heads: tl.constexpr, tokens: tl.constexpr, size: tl.constexpr,
    size_room: tl.constexpr, more: tl.constexpr, more_room: tl.constexpr, value_size: tl.constexpr,
    value_room: tl.constexpr, shares: tl.constexpr, step: tl.constexpr, block_tokens: tl.constexpr,
    stretch: tl.constexpr,
) -> None:  # fmt: skip
    tile, stretch_index = tl.program_id(0), tl.program_id(2)
    head_tiles: tl.constexpr = (group + heads - 1) // heads
    kv_head, head_tile = tl.program_id(1) // head_tiles, tl.program_id(1) % head_tiles
    count, first = tl.load(counts + tile), tl.load(firsts + tile)
    if count == 0:
        return
    earliest = tl.load(positions + first).to(tl.int32)
    latest = tl.load(positions + first + count - 1).to(tl.int32)
    begin, end = stretch_index * stretch, tl.minimum((stretch_index + 1) * stretch, latest + 1)
    if window > 0:
        begin = tl.maximum(begin, tl.maximum(earliest - window + 1, 0) // step * step)
    if begin >= end:
        return
    part = tl.arange(0, tokens * heads)
    token, in_group = part // heads, head_tile * heads + part % heads
    is_row = (token < count) & (in_group < group)
    head, row = kv_head * group + in_group, (first + token).to(tl.int64)
    position = tl.load(positions + row, mask=token < count, other=0).to(tl.int32)
    column, value_column = tl.arange(0, size_room), tl.arange(0, value_room)
    asked = _load_rows(query, row * query_row + head * size, column, size, is_row)
    if more > 0:
        more_column = tl.arange(0, more_room)
        more_asked = _load_rows(more_query, row * more_query_row + head * more, more_column, more, is_row)
    slot = tl.load(slots + first).to(tl.int64)
    peak = tl.full((tokens * heads,), float("-inf"), tl.float32)
    total = tl.zeros((tokens * heads,), tl.float32)
    mixed = tl.zeros((tokens * heads, value_room), tl.float32)
    for start in range(begin, end, step):
        place = start + tl.arange(0, step)
        known = place < end
        block = tl.load(tables + slot * table_width + place // block_tokens, mask=known, other=0)
        where = block.to(tl.int64) * block_tokens + place % block_tokens
        key = _load_rows(keys, where * key_row + kv_head * size, column, size, known)
        scores = dot(asked, tl.trans(key))
        if more > 0:
            more_key = _load_rows(more_keys, where * key_row, more_column, more, known)
            scores += dot(more_asked, tl.trans(more_key))
        seen = place[None, :] <= position[:, None]
        if window > 0:
            seen = seen & (place[None, :] > position[:, None] - window)
        scores = tl.where(seen, scores * scale, float("-inf"))
        higher = tl.maximum(peak, tl.max(scores, axis=1))
        base = tl.where(higher == float("-inf"), 0.0, higher)  # a row that has seen nothing yet
        weights, kept = tl.exp(scores - base[:, None]), tl.exp(peak - base)
        if shares:
            value = key
        else:
            value = _load_rows(
                values, where * value_row + kv_head * value_size, value_column, value_size, known
            )
        total = total * kept + tl.sum(weights, axis=1)
        mixed = mixed * kept[:, None] + dot(weights.to(value.dtype), value)
        peak = higher
    at = ((tile * tokens + token).to(tl.int64) * num_heads + head) * num_stretches + stretch_index
    tl.store(peaks + at, peak, mask=is_row)
    tl.store(sums + at, total, mask=is_row)
    tl.store(
        parts + at[:, None] * value_size + value_column[None, :], mixed,
        mask=is_row[:, None] & (value_column < value_size)[None, :],
    )  # fmt: skip


@triton.jit
def _merge(
    parts: tl.tensor, peaks: tl.tensor, sums: tl.tensor, positions: tl.tensor, firsts: tl.tensor, counts: tl.tensor,
    sinks: tl.tensor, output: tl.tensor, window: tl.tensor, num_heads: tl.tensor, num_stretches: tl.tensor,
    tokens: tl.constexpr, value_size: tl.constexpr, value_room: tl.constexpr, stretch: tl.constexpr,
    has_sinks: tl.constexpr,
) -> None:  # fmt: skip
    place, head = tl.program_id(0), tl.program_id(1)
    tile, token = place // tokens, place % tokens
    if token >= tl.load(counts + tile):
        return
    row = (tl.load(firsts + tile) + token).to(tl.int64)
    position = tl.load(positions + row).to(tl.int32)
    begin = position * 0
    if window > 0:
        begin = tl.maximum(position - window + 1, 0) // stretch
    column = tl.arange(0, value_room)
    inside = column < value_size
    at = (place.to(tl.int64) * num_heads + head) * num_stretches
    peak = tl.load(peaks + at + begin)
    total = tl.load(sums + at + begin)
    mixed = tl.load(parts + (at + begin) * value_size + column, mask=inside, other=0.0)
    for index in range(begin + 1, position // stretch + 1):
        theirs = tl.load(peaks + at + index)
        higher = tl.maximum(peak, theirs)
        kept, taken = tl.exp(peak - higher), tl.exp(theirs - higher)
        total = total * kept + tl.load(sums + at + index) * taken
        more = tl.load(parts + (at + index) * value_size + column, mask=inside, other=0.0)
        mixed = mixed * kept + more * taken
        peak = higher
    if has_sinks:
        sink = tl.load(sinks + head).to(tl.float32)
        higher = tl.maximum(peak, sink)
        total = total * tl.exp(peak - higher) + tl.exp(sink - higher)
        mixed = mixed * tl.exp(peak - higher)
    to = output + (row * num_heads + head) * value_size + column
    tl.store(to, (mixed / total).to(output.dtype.element_ty), mask=inside)


def attend(query: Tensor, keys: Tensor, values: Tensor, rows: Rows, heads: Heads) -> Tensor:
    """Mix values for query [N, H, D] over cached keys [blocks, 64, G · D] and values [blocks, 64, G · V]: [N, H, V].

    What the rows themselves bring must be in the cache by now.
    """
    groups = keys.shape[-1] // query.shape[-1]
    return _attend(query, None, keys, None, values, rows, heads, groups, values.shape[-1] // groups)


def attend_latent(query: Tensor, rotary: Tensor, cache: Tensor, rows: Rows, heads: Heads) -> Tensor:
    """Mix latents for query [N, H, D], and its rotary part [N, H, P], over a cache [blocks, 64, D + P]: [N, H, D]."""
    size = query.shape[-1]
    return _attend(query, rotary, cache, cache[..., size:], cache, rows, heads, 1, size)


def _attend(
    query: Tensor, more_query: Tensor | None, keys: Tensor, more_keys: Tensor | None, values: Tensor,
    rows: Rows, heads: Heads, groups: int, value_size: int,
) -> Tensor:  # fmt: skip
    """Tiles go together as long as the sums that wait have room."""
    num_heads, device = query.shape[1], query.device
    mixed = torch.zeros(len(query), num_heads, value_size, dtype=query.dtype, device=device)
    tokens = tokens_per_tile(num_heads, groups)
    stretches = triton.cdiv(rows.tables.shape[1] * BLOCK_TOKENS, STRETCH)
    at_once = max(_PART_BYTES // (4 * tokens * num_heads * stretches * value_size), 1)
    num_tiles = min(at_once, len(rows.firsts))
    shape = num_tiles * tokens, num_heads, stretches
    peaks, sums = (torch.empty(shape, device=device) for _ in range(2))
    parts = torch.empty(*shape, value_size, device=device)
    size, more = query.shape[2], 0 if more_query is None else more_query.shape[2]
    group = num_heads // groups
    head_tiles = triton.cdiv(group, TILE)
    for begin in range(0, len(rows.firsts), at_once):
        firsts, counts = rows.firsts[begin : begin + at_once], rows.counts[begin : begin + at_once]
        _stretch[(len(firsts), groups * head_tiles, stretches)](
            query, query if more_query is None else more_query, keys, keys if more_keys is None else more_keys, values,
            rows.tables, rows.slots, rows.positions, firsts, counts, parts, peaks, sums,
            heads.scale, heads.window, num_heads, rows.tables.shape[1],
            query.stride(0), 0 if more_query is None else more_query.stride(0), keys.shape[-1], values.shape[-1],
            stretches, group, TILE // tokens, tokens, size, _room(size), more, _room(more), value_size,
            _room(value_size), more > 0, 64 if size <= 128 else 32, BLOCK_TOKENS, STRETCH,
            num_warps=4 if size <= 256 else 8, num_stages=2 if size <= 256 else 1,
        )  # fmt: skip
        _merge[(len(firsts) * tokens, num_heads)](
            parts, peaks, sums, rows.positions, firsts, counts, peaks if heads.sinks is None else heads.sinks, mixed,
            heads.window, num_heads, stretches, tokens, value_size, _room(value_size), STRETCH, heads.sinks is not None,
        )  # fmt: skip
    return mixed


def _room(size: int) -> int:
    """Columns of a tile: products want powers of two, and 16 at least."""
    return max(triton.next_power_of_2(size), 16)
