"""What a multi-token module has guessed, a row of arrays for each slot; kernels read and write them by address."""

import numpy as np

from clearseek.engine.slots import Slots


class Guessing:
    """The first guess of each slot with the state it came with, and how many guesses came true by place."""

    # the order in which kernels read them: `Guessing` in decoding.h
    FOR_KERNEL = "first", "where", "states", "guessed", "accepted", "instead"

    def __init__(self, size: int, hidden: int, most: int) -> None:
        self.most = most  # at a time
        self.first = np.zeros(size, np.int64)
        self.where = np.full(size, -1, np.int64)  # the position of the token it follows; -1: there is none
        self.states = np.zeros((size, hidden), np.float32)
        self.guessed = np.zeros(most, np.int64)
        self.accepted = np.zeros(most, np.int64)
        self.instead = np.zeros((0, 0), np.int64)  # [slots, room] in the place of guesses, to measure with
        self._sitters = np.full(size, -1, np.int64)

    def begin(self, slots: Slots) -> None:
        """Forget what was guessed for those who have left their slots."""
        self.where[self._sitters != slots.seated] = -1
        self._sitters[:] = slots.seated

    def for_kernel(self) -> list[np.ndarray]:
        """Its arrays in the kernels' order."""
        return [getattr(self, name) for name in self.FOR_KERNEL]

    def counts(self) -> tuple[list[int], list[int]]:
        """How many were guessed at each place since this was last asked, and how many came true."""
        used = int(np.count_nonzero(self.guessed))
        counted = self.guessed[:used].tolist(), self.accepted[:used].tolist()
        self.guessed[:], self.accepted[:] = 0, 0
        return counted

    def note(self, slot: int, position: int, guess: int, state: np.ndarray) -> None:
        """A slot's first guess, which follows the token at `position`."""
        self.first[slot], self.where[slot], self.states[slot] = guess, position, state
