"""The runner on GPUs: kernels in Triton, and decoding steps as CUDA graphs. It keeps the cache in blocks like others.

A row's bits depend on its own context alone: see `attention` and `products`.
"""

import numpy as np
import torch
from torch import Tensor

from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.formats import Format
from clearseek.engine.gpu.attention import Rows, tokens_per_tile
from clearseek.engine.gpu.graphs import Capture, DecodeGraphs, bucket_of, capture_cuda, without_recording
from clearseek.engine.gpu.packed import Packed
from clearseek.engine.gpu.walk import Tables, Walk
from clearseek.engine.mixed_formats import Formats
from clearseek.engine.routes import Routes
from clearseek.engine.runner import Batch, copy_cached
from clearseek.model.attention import Cache
from clearseek.model.decoder import Decoder, Layer
from clearseek.model.rotary import rotary_table


class GpuRunner:
    """`num_blocks` blocks of cache and a model's weights in a format, on the model's device.

    Without `copies` weights that are in their format already are the model's own, which must not change then.
    Where it `predicts`, the cache of its multi-token module is the last. `capture` records decoding steps: by default
    as CUDA graphs on CUDA, and not at all elsewhere.
    """

    def __init__(
        self,
        model: Decoder,
        form: Format | Formats,
        num_blocks: int,
        predicts: bool = False,
        copies: bool = True,
        capture: Capture | None = None,
    ) -> None:
        self.model, self.predicts = model, predicts
        self.packed = Packed(model, form, predicts, copies)
        self.device = self.packed.embedding.device
        self.caches: list[Cache] = [()] * len(self._layers)
        self.routes: Routes | None = None
        self.width, self.tables = 0, Tables()
        capture = capture or (capture_cuda if self.device.type == "cuda" else without_recording)
        self.graphs = DecodeGraphs(self._scores_of_all, capture, self.device)
        self.grow(num_blocks)

    @torch.no_grad()
    def grow(self, num_blocks: int) -> None:
        """More blocks; what there are keep what they know. One more than asked for takes what nobody reads."""
        self.graphs.forget()
        for index, (layer, old) in enumerate(zip(self._layers, self.caches, strict=True)):
            shapes = ((num_blocks + 1, BLOCK_TOKENS, size) for size in layer.attention.cache_sizes)
            new = tuple(torch.zeros(shape, dtype=self.packed.dtype, device=self.device) for shape in shapes)
            for blocks, kept in zip(new, old, strict=False):
                blocks[: len(kept) - 1] = kept[:-1]
            self.caches[index] = new
        if self.routes is not None:
            self.routes.grow(num_blocks + 1)
        self.num_blocks = num_blocks

    def keep_routes(self) -> Routes:
        """From now on note which experts each token goes to."""
        self.graphs.forget()
        self.routes = Routes(self.model.config, self.num_blocks + 1, self.device)
        return self.routes

    @torch.no_grad()
    def step(self, batch: Batch) -> Tensor:
        """Scores [wanted, V] in fp32."""
        self._make_room(batch)
        if len(batch.stretches) == len(batch.tokens) and bucket_of(len(batch.tokens)) is not None:
            scores = self.graphs.step(batch, self.width, self.num_blocks)
            return scores[self._on_device(batch.wanted)]
        walk = self._walk(self._rows(batch))
        _, states = walk.through_layers(self._on_device(batch.tokens), self._own)
        return walk.scores(states[self._on_device(batch.wanted)])

    @torch.no_grad()
    def step_with_states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores [wanted, V] and the final states of all rows [N, hidden], both in fp32."""
        self._make_room(batch)
        walk = self._walk(self._rows(batch))
        return self._finished(batch, walk, *walk.through_layers(self._on_device(batch.tokens), self._own))

    @torch.no_grad()
    def predict(self, batch: Batch, states: Tensor) -> tuple[Tensor, Tensor]:
        """One token further than a step, by the multi-token module: scores [wanted, V], its states [N, hidden]."""
        self._make_room(batch)
        walk = self._walk(self._rows(batch))
        further = walk.through_module(self._on_device(batch.tokens), states.to(self.device), self.caches[-1])
        return self._finished(batch, walk, *further)

    def copy_block(self, source: int, to: int) -> None:
        """Make one block of the cache know what another does."""
        copy_cached(self.caches, self.routes, source, to)

    def refresh(self, model: Decoder) -> None:
        """The weights have changed: from now on they are those of `model`. What is recorded reads them in place."""
        self.model = model
        self.packed.take(model)

    @property
    def num_bytes(self) -> dict[str, int]:
        """Memory by what it is for: `weights`, `cache` and the graphs' `inputs`."""
        cache = sum(blocks.nbytes for cache in self.caches for blocks in cache)
        return {"weights": self.packed.num_bytes, "cache": cache, "inputs": self.graphs.num_bytes}

    @property
    def _layers(self) -> list[Layer]:
        """All that keep something of a token."""
        layers = [*self.model.layers, *(module.layer for module in list(self.model.mtp)[: self.predicts])]
        return [layer for layer in layers if isinstance(layer, Layer)]

    @property
    def _own(self) -> list[Cache]:
        """The caches of the model's own layers."""
        return self.caches[: len(self.model.layers)]

    def _on_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)

    def _make_room(self, batch: Batch) -> None:
        """Rotary tables as long as the slots' tables are wide; twice as long as before where they must grow."""
        if batch.tables.shape[1] <= self.width:
            return
        self.graphs.forget()
        self.width = max(batch.tables.shape[1], 2 * self.width)
        config = self.model.config
        thetas = {"full_attention": None, "sliding_attention": config.sliding_rope_theta}
        for kind, theta in thetas.items():
            cos, sin = rotary_table(config, self.width * BLOCK_TOKENS, self.device, theta)
            self.tables[kind] = cos.contiguous(), sin.contiguous()

    def _rows(self, batch: Batch) -> Rows:
        """A batch's rows on the device, those of a slot in tiles."""
        config, tiles = self.model.config, list[tuple[int, int]]()
        groups = {1 if config.is_latent else config.kv_heads_of(layer.layer_type) for layer in self._layers}
        most = min(tokens_per_tile(config.num_heads, count) for count in groups)
        for begin, count in batch.stretches:
            tiles += [
                (first, min(most, begin + count - first)) for first in range(begin, begin + count, most)
            ]
        placed = self._on_device(np.array(tiles, np.int32).T)
        positions, slots, tables = map(self._on_device, (batch.positions, batch.slots, batch.tables))
        return Rows(positions, slots, tables, placed[0], placed[1])

    def _walk(self, rows: Rows) -> Walk:
        routes = self.routes
        if routes is None:
            return Walk(self.model, self.packed, rows, self.tables)
        numbers = {layer: number for number, layer in enumerate(routes.layers)}

        def note(layer: int, block: Tensor, place: Tensor, mask: Tensor) -> None:
            routes.put(numbers[layer], block, place, mask)

        return Walk(self.model, self.packed, rows, self.tables, note)

    def _scores_of_all(self, tokens: Tensor, rows: Rows) -> Tensor:
        """What a graph records."""
        walk = self._walk(rows)
        return walk.scores(walk.through_layers(tokens, self._own)[1])

    def _finished(self, batch: Batch, walk: Walk, stream: Tensor, states: Tensor) -> tuple[Tensor, Tensor]:
        """Scores [wanted, V], and what the multi-token module takes of all rows [N, hidden]."""
        given = stream if self.model.config.mtp_shares_norm else states
        return walk.scores(states[self._on_device(batch.wanted)]), given.float()
