"""The runner in PyTorch: every family, every device. It gathers a slot's blocks, and puts what is new back."""

import numpy as np
import torch
from torch import Tensor

from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.runner import Batch
from clearseek.model.attention import Cache
from clearseek.model.decoder import Decoder, Layer


class PlainRunner:
    """`num_blocks` blocks of cache beside a model whose layers compute in `dtype`."""

    def __init__(self, model: Decoder, dtype: torch.dtype, num_blocks: int) -> None:
        self.model, self.dtype, self.num_blocks = model, dtype, num_blocks
        self.caches: list[Cache] = [()] * len(model.layers)
        self.grow(num_blocks)

    def grow(self, num_blocks: int) -> None:
        """More blocks; what there are keep what they know."""
        for index, (layer, old) in enumerate(zip(self.model.layers, self.caches, strict=True)):
            assert isinstance(layer, Layer)
            shapes = ((num_blocks, BLOCK_TOKENS, size) for size in layer.attention.cache_sizes)
            # zeros: what no token wrote yet is multiplied by nothing, and must be a number for that
            new = tuple(torch.zeros(shape, dtype=self.dtype, device=self.device) for shape in shapes)
            for blocks, kept in zip(new, old, strict=False):
                blocks[: len(kept)] = kept
            self.caches[index] = new
        self.num_blocks = num_blocks

    @torch.no_grad()
    def step(self, batch: Batch) -> Tensor:
        """Scores [wanted, V] in fp32. Slots with one new token go together, others one by one."""
        begins = np.flatnonzero(np.diff(batch.slots, prepend=-1))
        ends = np.append(begins[1:], len(batch.slots))
        single = begins[ends - begins == 1]
        parts = [single[:, None]] if len(single) else []
        parts += [
            np.arange(begin, end)[None] for begin, end in zip(begins, ends, strict=True) if end - begin > 1
        ]
        # of a prompt read from its beginning only the last token has final states: no other's are asked for
        shape = len(batch.tokens), self.model.config.hidden_size
        states = torch.zeros(shape, dtype=self.dtype, device=self.device)
        for rows in parts:
            extended = self._extend(batch, rows)
            states[torch.from_numpy(rows[:, -extended.shape[1] :]).to(self.device)] = extended
        return self.model.logits(states[torch.from_numpy(batch.wanted).to(self.device)])

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.embedding.weight.device

    def copy_block(self, source: int, to: int) -> None:
        """Make one block of the cache know what another does."""
        for cache in self.caches:
            for blocks in cache:
                blocks[to] = blocks[source]

    def refresh(self, model: Decoder) -> None:
        """The weights have changed: from now on they are those of `model`."""
        self.model = model

    def _extend(self, batch: Batch, rows: np.ndarray) -> Tensor:
        """Final states [B, T, hidden] of rows [B, T], those of a slot side by side."""
        tokens, where = (
            torch.from_numpy(part[rows]).to(self.device) for part in (batch.tokens, batch.positions)
        )
        width = int(batch.positions[rows].max()) // BLOCK_TOKENS + 1
        table = torch.from_numpy(batch.tables[batch.slots[rows[:, 0]], :width]).to(self.device).long()
        if tokens.shape[1] > 1 and not batch.positions[rows[0, 0]]:
            # a prompt from its beginning: without a cache to look at attention has a faster form
            self._put(self.model.prefill(tokens[:, :-1], self.dtype), table, where[:, :-1])
            tokens, where = tokens[:, -1:], where[:, -1:]
        gathered = [tuple(blocks[table].flatten(1, 2) for blocks in cache) for cache in self.caches]
        states = self.model.decode(tokens, where, gathered, self.dtype)
        index = torch.arange(len(rows), device=self.device)[:, None]
        self._put([tuple(entries[index, where] for entries in cache) for cache in gathered], table, where)
        return states

    def _put(self, entries: list[Cache], table: Tensor, where: Tensor) -> None:
        """Write entries [B, T, size] of every layer at positions `where` [B, T] of slots with blocks [B, S]."""
        block, place = table.gather(1, where // BLOCK_TOKENS), where % BLOCK_TOKENS
        for cache, new in zip(self.caches, entries, strict=True):
            for blocks, entry in zip(cache, new, strict=True):
                blocks[block, place] = entry
