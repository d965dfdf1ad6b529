"""Which rows go to which expert on a GPU: sorted by expert, cut into tiles, without asking the GPU how many there are.

Shapes: N tokens, K experts per token, E experts.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from clearseek.engine.gpu.products import TILE_ROWS, Tiles


class Sorted(NamedTuple):
    """Copies of tokens in the order of their experts, [N · K].

    `tiles` gather them from the tokens; `experts` [N · K] are theirs, `places` [N, K] where each token's are.
    """

    tiles: Tiles
    experts: Tensor
    places: Tensor


def sort_by_expert(chosen: Tensor, num_experts: int) -> Sorted:
    """Of the experts `chosen` [N, K] for each token. As many tiles as there may be at most; the last are empty."""
    count, device = chosen.numel(), chosen.device
    flat = chosen.flatten()
    order = flat.argsort(stable=True)
    experts = flat[order].contiguous()
    places = torch.empty_like(order).scatter_(0, order, torch.arange(count, device=device))
    every = torch.arange(num_experts, device=device, dtype=experts.dtype)
    starts, ends = (torch.searchsorted(experts, every, right=right) for right in (False, True))
    num_tiles = (ends - starts + TILE_ROWS - 1) // TILE_ROWS
    last = num_tiles.cumsum(0)
    tile = torch.arange(count // TILE_ROWS + min(num_experts, count), device=device)
    matrix = torch.searchsorted(last, tile, right=True).clamp(max=num_experts - 1)
    first = starts[matrix] + (tile - last[matrix] + num_tiles[matrix]) * TILE_ROWS
    rows = (ends[matrix] - first).clamp(0, TILE_ROWS) * (tile < last[-1])
    firsts, counts, matrices = (part.to(torch.int32) for part in (first, rows, matrix))
    tiles = Tiles(firsts, counts, matrices, order // chosen.shape[1])
    return Sorted(tiles, experts, places.view_as(chosen))
