"""The runner on kernels: one call takes a batch through all layers, or many steps of it without a way back."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.layout import Layout, cache_sizes
from clearseek.engine.runner import Batch
from clearseek.engine.slots import Slots
from clearseek.model.decoder import Decoder
from clearseek.model.huge_pages import HugePages
from clearseek.model.kernels.functions import call

_SMALL_BYTES = 16 << 20  # weights up to here go by sequences: each thread takes some through the whole model


class FusedRunner:
    """`num_blocks` blocks of cache and a model's weights laid out in a format."""

    def __init__(self, layout: Layout, num_blocks: int) -> None:
        self.layout = layout
        self.caches = self._caches(num_blocks)
        self._tables: tuple[int, Tensor, Tensor] | None = None

    def grow(self, num_blocks: int) -> None:
        """More blocks; what there are keep what they know."""
        old, self.caches, self._tables = self.caches, self._caches(num_blocks), None
        for new, kept in zip(self.caches, old, strict=True):
            for blocks, known in zip(new, kept, strict=True):
                blocks[: len(known)] = known

    def step(self, batch: Batch) -> Tensor:
        """Scores [wanted, V] in fp32."""
        count = len(batch.wanted)
        scores = torch.empty(count, self.layout.width)
        fields = [
            *map(_place, (batch.tokens, batch.positions, batch.slots, batch.tables)), batch.tables.shape[1],
            len(batch.tokens), _place(batch.wanted), count, scores.data_ptr(), 0, self.layout.width,
        ]  # fmt: skip
        call(
            "engine_step",
            *self._model(batch.tables.shape[1]),
            torch.tensor(fields, dtype=torch.int64),
            self.teams,
        )
        return scores[:, : self.layout.config.vocab_size]

    def decode(self, slots: Slots, stop_ids: np.ndarray, most: int, enough: int) -> None:
        """Draw up to `most` tokens for each active slot, until `enough` have ended, and note them there."""
        places = torch.tensor([_place(array) for array in slots.for_kernel()], dtype=torch.int64)
        (count, room), width = slots.tokens.shape, slots.tables.shape[1]
        rest = _place(stop_ids), len(stop_ids), most, enough, self.layout.config.vocab_size, self.layout.width
        call("engine_decode", *self._model(width), places, count, room, width, *rest, self.teams)

    def copy_block(self, source: int, to: int) -> None:
        """Make one block of the cache know what another does."""
        for cache in self.caches:
            for blocks in cache:
                blocks[to] = blocks[source]

    def refresh(self, model: Decoder) -> None:
        """The weights have changed: from now on they are those of `model`."""
        self.layout, self._tables = Layout(model, self.layout.form, self.layout.copies), None

    @property
    def teams(self) -> int:
        """How many share out the sequences; a team's threads share out each product."""
        return torch.get_num_threads() if self.layout.num_bytes <= _SMALL_BYTES else 1

    def _caches(self, num_blocks: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer, with room for `num_blocks` blocks."""
        memory, self.num_blocks, dtype = HugePages(), num_blocks, self.layout.dtype

        def blocks(size: int) -> Tensor:
            return memory.empty(num_blocks, BLOCK_TOKENS * size, dtype=dtype)

        return [(blocks(keys), blocks(values)) for keys, values in cache_sizes(self.layout.config)]

    def _model(self, table_width: int) -> tuple[Any, ...]:
        """What the kernels are told of the model, made again when a longer context needs longer rotary tables."""
        length = table_width * BLOCK_TOKENS
        if self._tables is None or self._tables[0] < length:
            self._tables = length, *self.layout.tables(self.caches, length)
        layout = self.layout
        is_wide = int(layout.dtype == torch.float32)
        return is_wide, *self._tables[1:], layout.constants, layout.routing


def _place(array: np.ndarray) -> int:
    assert array.flags.c_contiguous
    return array.ctypes.data
