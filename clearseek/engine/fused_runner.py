"""The runner on kernels: one call takes a batch through all layers, or many steps of it without a way back."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clearseek.engine.bell import Bell
from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.guessing import Guessing
from clearseek.engine.layout import Layout
from clearseek.engine.routes import Routes
from clearseek.engine.runner import Batch, copy_cached
from clearseek.engine.slots import Slots
from clearseek.model.decoder import Decoder
from clearseek.model.huge_pages import HugePages
from clearseek.model.kernels.functions import call

_SMALL_BYTES = 16 << 20  # weights up to here go by sequences: each thread takes some through the whole model


@dataclass(frozen=True)
class Course:
    """How far decoding goes: until `enough` slots have ended, one has `most` new tokens, or for `turns`.

    Where the `bell` rings it ends after a turn, if it listens by then.
    """

    stop_ids: np.ndarray  # [...] int64
    most: int
    enough: int
    turns: int
    bell: Bell | None = None


class FusedRunner:
    """`num_blocks` blocks of cache and a model's weights laid out in a format.

    Where it `predicts`, its multi-token module has a runner of its own beside it.
    """

    def __init__(self, layout: Layout, num_blocks: int, predicts: bool = False) -> None:
        self.layout = layout
        self.caches = self._caches(num_blocks)
        self.routes: Routes | None = None
        self._tables: tuple[int, Tensor, Tensor] | None = None
        self._told: Tensor | None = None  # of the model, where kernels find it
        self._further = FusedRunner(layout.of_module(layout.model), num_blocks) if predicts else None

    def grow(self, num_blocks: int) -> None:
        """More blocks; what there are keep what they know."""
        if self._further is not None:
            self._further.grow(num_blocks)
        old, self.caches, self._tables = self.caches, self._caches(num_blocks), None
        for new, kept in zip(self.caches, old, strict=True):
            for blocks, known in zip(new, kept, strict=True):
                blocks[: len(known)] = known
        if self.routes is not None:
            self.routes.grow(num_blocks)

    def keep_routes(self) -> Routes:
        """From now on note which experts each token goes to."""
        self.routes, self._tables = Routes(self.layout.config, self.num_blocks, torch.device("cpu")), None
        return self.routes

    def step(self, batch: Batch) -> Tensor:
        """Scores [wanted, V] in fp32."""
        return self._step(batch, None, None)

    def step_with_states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores [wanted, V] and the final states of all rows [N, hidden], both in fp32."""
        states = torch.empty(len(batch.tokens), self.layout.config.hidden_size)
        return self._step(batch, None, states), states

    def predict(self, batch: Batch, states: Tensor) -> tuple[Tensor, Tensor]:
        """One token further than a step, by the multi-token module: scores [wanted, V], its states [N, hidden].

        Only those of wanted rows are known to be there.
        """
        assert self._further is not None
        further = torch.empty_like(states)
        return self._further._step(batch, states.contiguous(), further), further

    def _step(self, batch: Batch, inputs: Tensor | None, states: Tensor | None) -> Tensor:
        count = len(batch.wanted)
        scores = torch.empty(count, self.layout.width)
        fields = [
            *map(_place, (batch.tokens, batch.positions, batch.slots, batch.tables)), batch.tables.shape[1],
            len(batch.tokens), _place(batch.wanted), count, scores.data_ptr(), _start(states), self.layout.width,
            _start(inputs),
        ]  # fmt: skip
        given = _words(fields)
        call("engine_step", *self._model(batch.tables.shape[1]), given)
        return scores[:, : self.layout.config.vocab_size]

    def decode(self, slots: Slots, course: Course, guessing: Guessing | None = None) -> None:
        """Draw tokens for active slots and note them there, with a multi-token module that guesses or without."""
        arrays, width = torch.from_numpy(slots.addresses), slots.tables.shape[1]
        given = self._course(slots, course, self.layout.width)
        if guessing is None:
            call("engine_decode", *self._model(width), arrays, given)
            return
        assert self._further is not None
        guesses = _words([guessing.most, *map(_place, guessing.for_kernel())])
        call("engine_guess", *self._model(width), *self._further._model(width), arrays, given, guesses)

    def take(self, slots: Slots, stop_ids: np.ndarray, asked: np.ndarray, scores: Tensor) -> None:
        """Draw a token for each slot `asked` by its row of scores [asked, V], and note it there, as `decode` does."""
        given = self._course(slots, Course(stop_ids, 1, 1, 1), scores.stride(0))
        words = torch.from_numpy(np.ascontiguousarray(asked, np.int64))
        call("engine_take", torch.from_numpy(slots.addresses), given, words, len(asked), scores)

    def _course(self, slots: Slots, course: Course, width: int) -> Tensor:
        """As kernels read it; `width` is how far rows of scores are apart."""
        (count, room), ends = slots.tokens.shape, course.stop_ids
        how_far = course.most, course.enough, course.turns
        size = self.layout.config.vocab_size
        bell = 0 if course.bell is None else _place(course.bell.words)
        return _words(
            [count, room, slots.tables.shape[1], _place(ends), len(ends), *how_far, size, width, bell]
        )

    def copy_block(self, source: int, to: int) -> None:
        """Make one block of the cache know what another does."""
        copy_cached(self.caches, self.routes, source, to)
        if self._further is not None:
            self._further.copy_block(source, to)

    def refresh(self, model: Decoder) -> None:
        """The weights have changed: from now on they are those of `model`."""
        kept = self.layout
        self.layout, self._tables = Layout(model, kept.form, kept.copies, kept.expands), None
        if self._further is not None:
            self._further.layout, self._further._tables = self.layout.of_module(model), None

    @property
    def teams(self) -> int:
        """How many share out the sequences; a team's threads share out each product."""
        return torch.get_num_threads() if self.layout.num_bytes <= _SMALL_BYTES else 1

    def _caches(self, num_blocks: int) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of every layer, with room for `num_blocks` blocks."""
        memory, self.num_blocks, dtype = HugePages(), num_blocks, self.layout.dtype

        def blocks(size: int) -> Tensor:
            return memory.empty(num_blocks, BLOCK_TOKENS * size, dtype=dtype)

        return [(blocks(keys), blocks(values)) for keys, values in self.layout.cache_sizes]

    def _model(self, table_width: int) -> tuple[int, Tensor]:
        """What the kernels are told of the model, made again when a longer context needs longer rotary tables."""
        length, layout = table_width * BLOCK_TOKENS, self.layout
        if self._tables is None or self._tables[0] < length:
            self._tables = length, *layout.tables(self.caches, length, self.routes)
        parts = *self._tables[1:], layout.constants, layout.routing
        self._told = _words([*(part.data_ptr() for part in parts), self.teams])
        return int(layout.dtype == torch.float32), self._told


def _start(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _place(array: np.ndarray) -> int:
    assert array.flags.c_contiguous
    return array.ctypes.data if array.size else 0


def _words(values: list[int]) -> Tensor:
    """Whole numbers and addresses side by side; torch's own way from a list takes ten times as long."""
    return torch.from_numpy(np.array(values, np.int64))
