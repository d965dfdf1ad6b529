"""What takes new tokens through a model: kernels where they know it, else PyTorch. All keep the cache in blocks."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from torch import Tensor

from clearseek.engine.routes import Routes
from clearseek.model.decoder import Decoder


@dataclass(frozen=True)
class Batch:
    """New tokens of several slots, N rows, those of a slot behind one another and in order.

    `tables` [slots, blocks] are the cache blocks of each slot, `wanted` the rows whose scores are asked for.
    """

    tokens: np.ndarray  # [N] int64
    positions: np.ndarray  # [N] int64
    slots: np.ndarray  # [N] int64
    tables: np.ndarray  # int32
    wanted: np.ndarray  # int64, ascending

    @property
    def stretches(self) -> list[tuple[int, int]]:
        """Where each slot's rows begin, and how many they are, in order."""
        begins = np.flatnonzero(np.diff(self.slots, prepend=-1))
        return list(zip(begins.tolist(), np.diff(begins, append=len(self.slots)).tolist(), strict=True))


class Runner(Protocol):
    """Extends the cache by a batch and says what may come next."""

    num_blocks: int

    def step(self, batch: Batch) -> Tensor:
        """Scores [wanted, V] in fp32."""

    def step_with_states(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Scores [wanted, V] and the final states of all rows [N, hidden], both in fp32."""

    def predict(self, batch: Batch, states: Tensor) -> tuple[Tensor, Tensor]:
        """One token further than a step, by the multi-token module: scores [wanted, V], its states [N, hidden], of
        wanted rows at least.

        `states` [N, hidden] are those of the batch's positions, its tokens the ones that follow there.
        """

    def copy_block(self, source: int, to: int) -> None:
        """Make one block of the cache know what another does."""

    def grow(self, num_blocks: int) -> None:
        """More blocks; what there are keep what they know."""

    def keep_routes(self) -> Routes:
        """From now on note which experts each token goes to."""

    def refresh(self, model: Decoder) -> None:
        """The weights have changed: from now on they are those of `model`."""


def copy_cached(caches: Iterable[Iterable[Tensor]], routes: Routes | None, source: int, to: int) -> None:
    """Make one block of every layer's cache know what another does; all lie by blocks first."""
    for cache in caches:
        for blocks in cache:
            blocks[to] = blocks[source]
    if routes is not None:
        routes.copy_block(source, to)
