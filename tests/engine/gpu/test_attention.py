"""Paged attention against a softmax written out, row by row: head sizes, windows, sinks, latents, bits."""

import pytest

pytest.importorskip("triton", reason="triton is not installed; make test-gpu brings it")

import torch

from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.gpu import attention
from clearseek.engine.gpu.attention import Heads, Rows, attend, attend_latent, tokens_per_tile
from tests.engine.gpu.device import DEVICE, normal

BLOCKS = 24
TABLES = torch.randperm(BLOCKS, generator=torch.Generator().manual_seed(5)).view(2, 12).to(torch.int32)
DTYPES = {torch.float32: 2e-6, torch.bfloat16: 1e-2}


def rows_of(most: int, *stretches: tuple[int, int, int]) -> Rows:
    """Stretches (slot, first, last) in tiles of at most so many rows."""
    positions = [place for _, first, last in stretches for place in range(first, last)]
    slots = [slot for slot, first, last in stretches for _ in range(first, last)]
    tiles, begin = [], 0
    for _, first, last in stretches:
        tiles += [(begin + at, min(most, last - first - at)) for at in range(0, last - first, most)]
        begin += last - first
    firsts, counts = torch.tensor(tiles, dtype=torch.int32, device=DEVICE).T.contiguous()
    given = (torch.tensor(part, device=DEVICE) for part in (positions, slots))
    return Rows(*given, TABLES.to(DEVICE), firsts, counts)


def written_out(query, keys, values, rows, heads):
    """query [N, H, D] over keys [blocks, 64, G, D] and values [blocks, 64, G, V], in fp64."""
    found = []
    for row, position in enumerate(rows.positions.tolist()):
        first = max(position - heads.window + 1, 0) if heads.window else 0
        place = torch.arange(first, position + 1, device=DEVICE)
        block = rows.tables[rows.slots[row]][place // BLOCK_TOKENS].long()
        each = query.shape[1] // keys.shape[2]
        key, value = (
            part[block, place % BLOCK_TOKENS].repeat_interleave(each, 1).double() for part in (keys, values)
        )
        scores = torch.einsum("hd,shd->hs", query[row].double(), key) * heads.scale
        if heads.sinks is not None:
            scores = torch.cat((scores, heads.sinks[:, None].double()), 1)
        found.append(torch.einsum("hs,shd->hd", scores.softmax(-1)[:, : len(place)], value))
    return torch.stack(found)


SHAPES = {
    "64, a window": (4, 2, 64, 64, 40, False),
    "80, one group": (5, 1, 80, 80, 0, False),
    "96, sinks": (6, 3, 96, 96, 0, True),
    "128, no groups": (2, 2, 128, 128, 0, False),
    "192, narrower values": (2, 1, 192, 128, 0, False),
    "256, a window and sinks": (4, 2, 256, 256, 600, True),
    "12, many heads": (70, 1, 12, 12, 0, False),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_attention_is_a_softmax_over_what_is_seen(name, dtype):
    num_heads, groups, size, value_size, window, has_sinks = SHAPES[name]
    keys = normal(BLOCKS, BLOCK_TOKENS, groups, size, dtype=dtype)
    values = normal(BLOCKS, BLOCK_TOKENS, groups, value_size, dtype=dtype, seed=1)
    rows = rows_of(tokens_per_tile(num_heads, groups), (0, 0, 3), (1, 690, 695), (0, 63, 65))
    query = normal(len(rows.positions), num_heads, size, dtype=dtype, seed=2)
    heads = Heads(size**-0.5, window, normal(num_heads, seed=3) if has_sinks else None)
    found = attend(query, keys.flatten(2), values.flatten(2), rows, heads)
    wanted = written_out(query, keys, values, rows, heads)
    assert (found - wanted).norm() / wanted.norm() < DTYPES[dtype]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("num_heads", "rank", "rope"), [(16, 512, 64), (70, 16, 6), (3, 48, 20)])
def test_latents_are_keys_and_values(num_heads, rank, rope, dtype):
    cache = normal(BLOCKS, BLOCK_TOKENS, rank + rope, dtype=dtype)
    rows = rows_of(tokens_per_tile(num_heads, 1), (0, 0, 2), (1, 600, 603))
    query = normal(len(rows.positions), num_heads, rank + rope, dtype=dtype, seed=2)
    heads = Heads((rank + rope) ** -0.5)
    found = attend_latent(query[..., :rank].contiguous(), query[..., rank:].contiguous(), cache, rows, heads)
    shared = cache.unsqueeze(2)
    wanted = written_out(query, shared, shared[..., :rank], rows, heads)
    assert (found - wanted).norm() / wanted.norm() < DTYPES[dtype]


@pytest.mark.parametrize("window", [0, 40, 600])
def test_a_row_s_bits_do_not_depend_on_how_it_came(window, monkeypatch):
    """Alone, with others, in tiles that begin anywhere, beside a longer table, and in several turns."""
    keys, values = (normal(BLOCKS, BLOCK_TOKENS, 2 * 64, dtype=torch.bfloat16, seed=seed) for seed in (0, 1))
    stretches = (0, 505, 525), (1, 60, 65)
    rows, heads = rows_of(32, *stretches), Heads(0.125, window)
    query = normal(25, 4, 64, dtype=torch.bfloat16, seed=2)
    wanted = attend(query, keys, values, rows, heads)
    alone = rows_of(1, *stretches)
    for other in (alone, rows_of(7, *stretches)):
        assert torch.equal(attend(query, keys, values, other, heads), wanted)
    wider = Rows(rows.positions, rows.slots, rows.tables.repeat(1, 2), rows.firsts, rows.counts)
    assert torch.equal(attend(query, keys, values, wider, heads), wanted)
    monkeypatch.setattr(attention, "_PART_BYTES", 1)
    assert torch.equal(attend(query, keys, values, rows, heads), wanted)
    one = Rows(rows.positions[22:23], rows.slots[22:23], rows.tables, alone.firsts[:1], alone.counts[:1])
    assert torch.equal(attend(query[22:23], keys, values, one, heads)[0], wanted[22])


def test_what_no_row_sees_is_not_read():
    """Not even where it is no number: blocks keep what was there before."""
    keys, values = (normal(BLOCKS, BLOCK_TOKENS, 64, seed=seed) for seed in (0, 1))
    rows = rows_of(16, (0, 3, 6))
    query = normal(3, 4, 64, seed=2)
    wanted = attend(query, keys, values, rows, Heads(0.125))
    for part in (keys, values):
        part.view(-1, 64)[:] = torch.where(
            torch.zeros(BLOCKS * BLOCK_TOKENS, 1, device=DEVICE).index_fill(
                0, torch.arange(6, device=DEVICE) + BLOCK_TOKENS * int(TABLES[0, 0]), 1.0
            ) > 0,
            part.view(-1, 64), float("nan"),
        )  # fmt: skip
    assert torch.equal(attend(query, keys, values, rows, Heads(0.125)), wanted)
