"""Decoding steps recorded once and played again: CUDA graphs for batches of a few sizes, filled up to the next.

What is recorded reads its inputs from memory that stays in place. How it is recorded is handed in, so that buckets and
filling can be tested without a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clearseek.engine.gpu.attention import Rows
from clearseek.engine.runner import Batch

BUCKETS = 1, 2, 4, 8, 16, 32, 64, 128, 256
Run = Callable[[], Tensor]
Capture = Callable[[Run], Run]  # what gives the same tensor again and again, with new numbers in it


def bucket_of(num_rows: int) -> int | None:
    """How many rows a batch is filled up to; None where it is larger than all buckets."""
    return next((bucket for bucket in BUCKETS if bucket >= num_rows), None)


def capture_cuda(run: Run) -> Run:
    """Record `run` as a CUDA graph, after one turn in which kernels are compiled."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def without_recording(run: Run) -> Run:
    """On other devices every turn is computed anew."""
    return run


@dataclass(frozen=True)
class Recorded:
    """A bucket's inputs, `numbers` [2, rows] (tokens and positions), and what computes their scores."""

    numbers: Tensor
    rows: Rows
    replay: Run


class DecodeGraphs:
    """Scores of one new token of each of many sequences; `run` computes those [N, V] of tokens [N] at their rows.

    Rows that only fill up write into the cache's `spare` block, which nobody reads.
    """

    def __init__(self, run: Callable[[Tensor, Rows], Tensor], capture: Capture, device: torch.device) -> None:
        self.run, self.capture, self.device = run, capture, device
        self._recorded: dict[int, Recorded] = {}

    def forget(self) -> None:
        """What was recorded reads memory that is no longer used."""
        self._recorded.clear()

    @property
    def num_bytes(self) -> int:
        """Memory of the inputs; that of intermediate results is CUDA's, and shared by all graphs on a device."""
        return sum(one.numbers.nbytes + one.rows.tables.nbytes for one in self._recorded.values())

    def step(self, batch: Batch, width: int, spare: int) -> Tensor:
        """Scores [N, V], overwritten by the next step; a slot's table is `width` blocks wide."""
        count = len(batch.tokens)
        bucket = bucket_of(count)
        assert bucket is not None
        numbers = np.zeros((2, bucket), np.int64)
        numbers[:, :count] = batch.tokens, batch.positions
        tables = np.full((bucket, width), spare, np.int32)
        tables[:count, : batch.tables.shape[1]] = batch.tables[batch.slots]
        counts = (np.arange(bucket) < count).astype(np.int32)
        given = [torch.from_numpy(part) for part in (numbers, tables, counts)]
        recorded = self._recorded.get(bucket)
        if recorded is None:
            recorded = self._recorded[bucket] = self._record(*given)
        else:
            kept = recorded.numbers, recorded.rows.tables, recorded.rows.counts
            for ours, theirs in zip(kept, given, strict=True):
                ours.copy_(theirs)
        return recorded.replay()[:count]

    def _record(self, numbers: Tensor, tables: Tensor, counts: Tensor) -> Recorded:
        numbers = numbers.to(self.device)
        slots = torch.arange(numbers.shape[1], device=self.device)
        rows = Rows(numbers[1], slots, tables.to(self.device), slots.to(torch.int32), counts.to(self.device))
        return Recorded(numbers, rows, self.capture(lambda: self.run(numbers[0], rows)))
