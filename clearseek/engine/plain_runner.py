"""The runner in PyTorch: every family, every device. It gathers a slot's blocks, and puts what is new back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.routes import Routes
from clearseek.engine.runner import Batch, copy_cached
from clearseek.model.attention import Cache
from clearseek.model.decoder import Decoder, Layer, MultiTokenModule


class PlainRunner:
    """`num_blocks` blocks of cache beside a model whose layers compute in `dtype`.

    Where it `predicts`, the cache of its multi-token module is the last.
    """

    def __init__(self, model: Decoder, dtype: torch.dtype, num_blocks: int, predicts: bool = False) -> None:
        self.model, self.dtype, self.num_blocks, self.predicts = model, dtype, num_blocks, predicts
        self.caches: list[Cache] = [()] * len(self._layers)
        self.routes: Routes | None = None
        self.grow(num_blocks)

    def grow(self, num_blocks: int) -> None:
        """More blocks; what there are keep what they know."""
        for index, (layer, old) in enumerate(zip(self._layers, self.caches, strict=True)):
            shapes = ((num_blocks, BLOCK_TOKENS, size) for size in layer.attention.cache_sizes)
            # zeros: what no token wrote yet is multiplied by nothing, and must be a number for that
            new = tuple(torch.zeros(shape, dtype=self.dtype, device=self.device) for shape in shapes)
            for blocks, kept in zip(new, old, strict=False):
                blocks[: len(kept)] = kept
            self.caches[index] = new
        if self.routes is not None:
            self.routes.grow(num_blocks)
        self.num_blocks = num_blocks

    def keep_routes(self) -> Routes:
        """From now on note which experts each token goes to."""
        self.routes = Routes(self.model.config, self.num_blocks, self.device)
        return self.routes

    @torch.no_grad()
    def step(self, batch: Batch) -> Tensor:
        """Scores [wanted, V] in fp32."""
        # of a prompt read from its beginning only the last token has final states: no other's are asked for
        states = self._states(batch, lambda rows: self._extend(batch, rows), self.dtype)
        return self._scores(batch, states)

    @torch.no_grad()
    def step_with_states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores [wanted, V] and the final states of all rows [N, hidden], both in fp32."""
        stream = self._states(batch, lambda rows: self._stream(*self._placed(batch, rows)), self._wide)
        return self._finished(batch, stream, None)

    @torch.no_grad()
    def predict(self, batch: Batch, states: Tensor) -> tuple[Tensor, Tensor]:
        """One token further than a step, by the multi-token module: scores [wanted, V], its states [N, hidden]."""
        stream = self._states(
            batch, lambda rows: self._further(states, rows, *self._placed(batch, rows)), self._wide
        )
        module = self.model.mtp[0]
        assert isinstance(module, MultiTokenModule)
        return self._finished(batch, stream, module)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.embedding.weight.device

    def copy_block(self, source: int, to: int) -> None:
        """Make one block of the cache know what another does."""
        copy_cached(self.caches, self.routes, source, to)

    def clear(self) -> None:
        """No block knows anything."""
        for cache in self.caches:
            for blocks in cache:
                blocks.zero_()

    def refresh(self, model: Decoder) -> None:
        """The weights have changed: from now on they are those of `model`."""
        self.model = model

    @property
    def _layers(self) -> list[Layer]:
        """All that keep something of a token."""
        further = [
            module.layer for module in list(self.model.mtp)[:1] if isinstance(module, MultiTokenModule)
        ]
        own = [layer for layer in self.model.layers if isinstance(layer, Layer)]
        return own + further if self.predicts else own

    @property
    def _wide(self) -> torch.dtype:
        """What the stream between layers is kept in."""
        return torch.promote_types(self.dtype, torch.float32)

    def _states(self, batch: Batch, extend: Callable[[np.ndarray], Tensor], dtype: torch.dtype) -> Tensor:
        """States [N, hidden] that `extend` gives of some rows [B, T]. Slots with one go together, others one by one."""
        single = [begin for begin, count in batch.stretches if count == 1]
        parts = [np.array(single)[:, None]] if single else []
        parts += [np.arange(begin, begin + count)[None] for begin, count in batch.stretches if count > 1]
        shape = len(batch.tokens), self.model.config.hidden_size
        states = torch.zeros(shape, dtype=dtype, device=self.device)
        for rows in parts:
            extended = extend(rows)
            states[torch.from_numpy(rows[:, -extended.shape[1] :]).to(self.device)] = extended
        return states

    def _finished(
        self, batch: Batch, stream: Tensor, module: MultiTokenModule | None
    ) -> tuple[Tensor, Tensor]:
        """Scores [wanted, V] of what the layers, or a module's, left, and what the module takes of it [N, hidden]."""
        states = self.model.last_norm(module)(stream, self.dtype)
        given = stream if self.model.config.mtp_shares_norm else states
        return self._scores(batch, states), given.float()

    def _scores(self, batch: Batch, states: Tensor) -> Tensor:
        return self.model.logits(states[torch.from_numpy(batch.wanted).to(self.device)])

    def _placed(self, batch: Batch, rows: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and positions of rows [B, T], those of a slot side by side, and their slots' blocks [B, S]."""
        tokens, where = (
            torch.from_numpy(part[rows]).to(self.device) for part in (batch.tokens, batch.positions)
        )
        width = int(batch.positions[rows].max()) // BLOCK_TOKENS + 1
        table = torch.from_numpy(batch.tables[batch.slots[rows[:, 0]], :width]).to(self.device).long()
        return tokens, where, table

    def _extend(self, batch: Batch, rows: np.ndarray) -> Tensor:
        """Final states [B, T, hidden] of rows [B, T]; of the last one alone where there is a faster form."""
        tokens, where, table = self._placed(batch, rows)
        if self._may_prefill(batch, rows):
            # without a cache to look at attention has a faster form
            self._put(self.model.prefill(tokens[:, :-1], self.dtype), self._own, table, where[:, :-1])
            tokens, where = tokens[:, -1:], where[:, -1:]
        return self.model.norm(self._stream(tokens, where, table), self.dtype)

    def _may_prefill(self, batch: Batch, rows: np.ndarray) -> bool:
        """Whether it is a prompt from its beginning, and nothing but the last token's states is asked for."""
        is_beginning = rows.shape[1] > 1 and not batch.positions[rows[0, 0]]
        return is_beginning and self.routes is None and not np.isin(batch.wanted, rows[:, :-1]).any()

    def _stream(self, tokens: Tensor, where: Tensor, table: Tensor) -> Tensor:
        """What the layers leave of new tokens, before the last norm [B, T, hidden]."""
        gathered = [self._gathered(cache, table) for cache in self._own]
        with self._noting(table, where):
            stream = self.model.extend(tokens, where, gathered, self.dtype)
        self._put([_newest(cache, where) for cache in gathered], self._own, table, where)
        return stream

    @contextmanager
    def _noting(self, table: Tensor, where: Tensor) -> Iterator[None]:
        """Note what routers choose meanwhile for tokens at positions `where` [B, T] of slots with blocks [B, S]."""
        hooks = []
        if self.routes is not None:
            place = table.gather(1, where // BLOCK_TOKENS), where % BLOCK_TOKENS
            layers = [self.model.layers[index] for index in self.routes.layers]
            for number, layer in enumerate(layers):
                router = layer.get_submodule("feed_forward.router")
                hooks.append(router.register_forward_hook(partial(_note, self.routes, number, place)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _further(
        self, states: Tensor, rows: np.ndarray, tokens: Tensor, where: Tensor, table: Tensor
    ) -> Tensor:
        gathered = self._gathered(self.caches[-1], table)
        before = states[torch.from_numpy(rows).to(self.device)]
        further = self.model.predict(before, tokens, where, gathered, self.dtype)
        self._put([_newest(gathered, where)], self.caches[-1:], table, where)
        return further

    @property
    def _own(self) -> list[Cache]:
        """The caches of the model's own layers."""
        return self.caches[: len(self.model.layers)]

    def _gathered(self, cache: Cache, table: Tensor) -> Cache:
        return tuple(blocks[table].flatten(1, 2) for blocks in cache)

    def _put(self, entries: list[Cache], caches: list[Cache], table: Tensor, where: Tensor) -> None:
        """Write entries [B, T, size] into each of `caches` at positions `where` [B, T] of slots with blocks [B, S]."""
        block, place = table.gather(1, where // BLOCK_TOKENS), where % BLOCK_TOKENS
        for cache, new in zip(caches, entries, strict=True):
            for blocks, entry in zip(cache, new, strict=True):
                blocks[block, place] = entry


def _newest(cache: Cache, where: Tensor) -> Cache:
    """What a gathered cache [B, S, size] keeps at positions `where` [B, T]."""
    index = torch.arange(len(where), device=where.device)[:, None]
    return tuple(entries[index, where] for entries in cache)


def _note(
    routes: Routes,
    layer: int,
    place: tuple[Tensor, Tensor],
    router: Any,
    inputs: Any,
    outputs: tuple[Tensor, ...],
) -> None:
    """A router's forward hook."""
    routes.put(layer, *place, outputs[1])
