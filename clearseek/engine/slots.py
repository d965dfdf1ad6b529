"""The sequences being decoded: a row of arrays for each slot. Python sees one only when it enters or leaves.

The arrays are numpy's: kernels read them by address, and single numbers are cheap to get at.
"""

import numpy as np

from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.sequence import Sequence
from clearseek.engine.streams import uniforms_of

_PER_TOKEN = "uniforms", "tokens", "log_probs", "entropies"


class Slots:
    """`size` slots for completions of up to `room` tokens and contexts of up to `num_blocks` blocks."""

    # the order in which kernels read them: `Slots` in step.cpp
    FOR_KERNEL = (
        "last_token", "position", "num_sampled", "budget", "active", "tables", "inverse", "uniforms", "tokens",
        "log_probs", "entropies", "top_k", "top_p", "minds_ends",
    )  # fmt: skip

    def __init__(self, size: int, room: int, num_blocks: int) -> None:
        self.sequences: list[Sequence | None] = [None] * size
        self.last_token = np.zeros(size, np.int64)
        self.position = np.zeros(size, np.int64)  # where `last_token` goes
        self.num_sampled = np.zeros(size, np.int64)
        self.budget = np.ones(size, np.int64)
        self.active = np.zeros(size, np.uint8)  # whether its prompt is read and it has not ended
        self.num_blocks = np.zeros(size, np.int64)  # that it holds
        self.seated = np.zeros(size, np.int64)  # the how-manieth to be seated
        self.tables = np.zeros((size, num_blocks), np.int32)
        self.inverse = np.ones(size, np.float32)  # 1 / temperature; 0: the likeliest
        self.top_k = np.zeros(size, np.int64)  # 0: all
        self.top_p = np.ones(size, np.float32)
        self.minds_ends = np.ones(size, np.uint8)  # whether the model's own end tokens end it
        self.is_plain = np.ones(size, np.bool_)  # see `Sampling.is_simple`; nobody was told to answer now
        self.uniforms = np.zeros((size, room), np.float32)
        self.tokens = np.zeros((size, room), np.int64)
        self.log_probs = np.zeros((size, room), np.float32)
        self.entropies = np.zeros((size, room), np.float32)
        self._addresses: np.ndarray | None = None

    @property
    def room(self) -> int:
        """Tokens that a slot can take."""
        return self.tokens.shape[1]

    def grow(self, room: int, num_blocks: int) -> None:
        """Make longer completions and contexts fit; shorter ones do anyway."""
        for name, width in ("tables", num_blocks), *((name, room) for name in _PER_TOKEN):
            array = getattr(self, name)
            if width > array.shape[1]:
                setattr(self, name, np.pad(array, ((0, 0), (0, width - array.shape[1]))))
        self._addresses = None

    @property
    def free(self) -> list[int]:
        """The empty slots."""
        return [slot for slot, sequence in enumerate(self.sequences) if sequence is None]

    @property
    def taken(self) -> list[int]:
        """The others, in the order of their slots."""
        return [slot for slot, sequence in enumerate(self.sequences) if sequence is not None]

    @property
    def not_active(self) -> list[int]:
        """Those that are taken by a sequence which is still being read, or has ended."""
        return [
            slot for slot in np.flatnonzero(self.active == 0).tolist() if self.sequences[slot] is not None
        ]

    def at(self, slot: int) -> Sequence:
        """Who sits in a slot that is taken."""
        sequence = self.sequences[slot]
        assert sequence is not None
        return sequence

    def known(self, slot: int, first: int = 0) -> np.ndarray:
        """The tokens of a slot's sequence from place `first` on: its prompt's and what is sampled by now."""
        prompt, count = self.at(slot).prompt, self.num_sampled[slot]
        sampled = self.tokens[slot, max(first - len(prompt), 0) : count]
        return np.concatenate((prompt[first:], sampled)) if first < len(prompt) else sampled

    @property
    def addresses(self) -> np.ndarray:
        """Where its arrays are, as `FusedRunner.decode` tells kernels; int64."""
        if self._addresses is None:
            self._addresses = np.array(
                [getattr(self, name).ctypes.data for name in self.FOR_KERNEL], np.int64
            )
        return self._addresses

    def seat(self, pairs: list[tuple[int, Sequence]]) -> None:
        """Put sequences into empty slots; each goes on where it was paused."""
        slots, sequences = [slot for slot, _ in pairs], [sequence for _, sequence in pairs]
        settings = [sequence.request.sampling for sequence in sequences]
        self.seated[slots] = self.seated.max() + 1 + np.arange(len(slots))
        self.last_token[slots] = [sequence.tokens[-1] for sequence in sequences]
        self.position[slots] = [len(sequence.tokens) - 1 for sequence in sequences]
        self.num_sampled[slots] = [len(sequence.sampled) for sequence in sequences]
        self.active[slots] = [sequence.is_read for sequence in sequences]
        self.budget[slots] = [one.max_tokens for one in settings]
        self.inverse[slots] = [1 / one.temperature if one.temperature else 0 for one in settings]
        self.top_k[slots] = [one.top_k for one in settings]
        self.top_p[slots] = [one.top_p for one in settings]
        self.minds_ends[slots] = [not one.ignore_eos for one in settings]
        self.is_plain[slots] = [sequence.ending is None for sequence in sequences]
        self._draw(slots, sequences)
        for slot, sequence in pairs:
            self.sequences[slot] = sequence
            self.extend_table(slot)
            if sequence.sampled:
                for array, values in self._results(sequence):
                    array[slot, : len(values)] = values

    def _draw(self, slots: list[int], sequences: list[Sequence]) -> None:
        """The random numbers of sequences, those of equal length at once."""
        lengths = np.array([sequence.request.sampling.max_tokens for sequence in sequences])
        for count in set(lengths.tolist()):
            places = np.flatnonzero(lengths == count).tolist()
            keys = [(sequences[place].request.key, sequences[place].sample) for place in places]
            self.uniforms[[slots[place] for place in places], :count] = uniforms_of(keys, count)

    def extend_table(self, slot: int) -> None:
        """Note the blocks that a slot's sequence holds by now."""
        sequence = self.at(slot)
        self.tables[slot, : len(sequence.blocks)] = sequence.blocks
        self.num_blocks[slot] = len(sequence.blocks)

    def record(
        self, slots: np.ndarray, tokens: np.ndarray, log_probs: np.ndarray, entropies: np.ndarray
    ) -> None:
        """Note a token for each of `slots`."""
        where = slots, self.num_sampled[slots]
        self.tokens[where], self.log_probs[where], self.entropies[where] = tokens, log_probs, entropies
        self.last_token[slots] = tokens
        self.num_sampled[slots] += 1
        self.position[slots] += 1

    def missing_blocks(self, ahead: int) -> np.ndarray:
        """How many blocks each active slot lacks for its next `ahead` tokens, [slots]."""
        left = self.budget - self.num_sampled
        needed = (self.position + np.minimum(ahead, left) - 1) // BLOCK_TOKENS + 1
        return np.maximum(needed - self.num_blocks, 0) * self.active

    def leave(self, slot: int) -> Sequence:
        """Empty a slot; its sequence keeps what was sampled."""
        sequence = self.at(slot)
        count = self.num_sampled[slot]
        for array, values in self._results(sequence):
            values[:] = array[slot, :count].tolist()
        self.sequences[slot], self.active[slot] = None, 0
        return sequence

    def _results(self, sequence: Sequence) -> tuple[tuple[np.ndarray, list], ...]:
        return (
            (self.tokens, sequence.sampled),
            (self.log_probs, sequence.log_probs),
            (self.entropies, sequence.entropies),
        )
