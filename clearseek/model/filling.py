"""Stored tensors into their places: rows at a time, by as many threads as torch has.

Rows are read straight into a parameter, or through a buffer where they are stored in another dtype or order;
so loading needs a few MiB beside the model.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clearseek.config.errors import InputError
from clearseek.model.families.pieces import Piece
from clearseek.model.sources import Plain, Source
from clearseek.model.stored import TORCH_DTYPES

CHUNK_BYTES = 4 << 20  # of a parameter, at a time in each thread


@dataclass(frozen=True, slots=True)
class Placed:
    """A stored tensor, and the view of our parameter that it goes to."""

    piece: Piece
    source: Source
    place: Tensor


@dataclass(frozen=True, slots=True)
class Rows:
    """A stretch of a stored tensor's first dimension."""

    of: Placed
    start: int
    stop: int


def fill(directory: Path, placed: Iterable[Placed]) -> None:
    """Copy every stored piece into its place; InputError where a copy doesn't equal what it repeats."""
    every = list(placed)
    own = [one for one in every if one.piece.kind == "own"]
    _in_parallel(_copy, (rows for one in own for rows in _chunks(one)))
    originals = {one.piece.ours: one.piece.published for one in own}
    for one in every:
        if one.piece.kind != "own" and not all(map(_is_equal, _chunks(one))):
            original = originals.get(one.piece.ours, one.piece.ours)
            raise InputError(
                f"{directory}: {one.piece.published} differs from {original}, which it should repeat; "
                "weights of its own are not supported there"
            )


def _chunks(one: Placed) -> Iterator[Rows]:
    num_rows, step = one.source.shape[0], one.source.step
    row_bytes = max(one.place.nbytes // max(num_rows, 1), 1)
    count = max(CHUNK_BYTES // row_bytes // step, 1) * step
    for start in range(0, num_rows, count):
        yield Rows(one, start, min(start + count, num_rows))


def _copy(rows: Rows) -> None:
    source, place = rows.of.source, rows.of.place[rows.start : rows.stop]
    if isinstance(source, Plain) and _is_read_straight(source, place):
        source.file.read_into(place.view(-1), source.name, rows.start)
    else:
        place.copy_(source.rows(rows.start, rows.stop).view(place.shape))


def _is_read_straight(source: Plain, place: Tensor) -> bool:
    alike = place.dtype == TORCH_DTYPES[source.dtype]
    return alike and place.device.type == "cpu" and place.is_contiguous()


def _is_equal(rows: Rows) -> bool:
    place = rows.of.place[rows.start : rows.stop]
    return torch.equal(rows.of.source.rows(rows.start, rows.stop).to(place).view(place.shape), place)


def _in_parallel(work: Callable[[Rows], None], jobs: Generator[Rows, None, None]) -> None:
    """`work` on all jobs, each thread computing alone; the first error stops every thread."""
    turn = threading.Lock()

    def work_on() -> None:
        while True:
            with turn:
                rows = next(jobs, None)
            if rows is None:
                return
            try:
                work(rows)
            except BaseException:
                with turn:
                    jobs.close()
                raise

    with _one_thread_each() as threads, ThreadPoolExecutor(threads, "loading") as pool:
        for done in [pool.submit(work_on) for _ in range(threads)]:
            done.result()


@contextmanager
def _one_thread_each() -> Iterator[int]:
    """Threads that begin inside the block compute alone; yields how many would have shared a computation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield before
    finally:
        torch.set_num_threads(before)
