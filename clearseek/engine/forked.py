"""One thread and one process per core: small models spend a decoding step on dispatch, which threads don't share.

A child is a fork that computes one part and hands its result back through a pipe; it holds a copy of everything,
so nothing has to be sent to it. Linux only: elsewhere a forked process may not use its parent's libraries.
"""

import contextlib
import os
import pickle
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")
_CHUNK_BYTES = 1 << 20


def can_fork() -> bool:
    """Whether parts may be computed in forked processes here."""
    return sys.platform == "linux" and hasattr(os, "fork")


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def map_forked(work: Callable[[Part], Result], parts: Sequence[Part], timeout_seconds: float) -> list[Result]:
    """`work` of every part: the first here, the others each in a forked process, all with one thread.

    A part whose process dies or exceeds `timeout_seconds` after ours is done is computed here instead.
    """
    with threads(1):
        children = [_Child(work, part) for part in parts[1:]]
        try:
            first = work(parts[0])
            deadline = time.monotonic() + timeout_seconds
            results = [child.result(deadline) for child in children]
        finally:
            for child in children:
                child.kill()
        again = [work(p) if r is None else r[0] for p, r in zip(parts[1:], results, strict=True)]
    return [first, *again]


class _Child:
    """A forked process that computes one part and writes its pickled result to a pipe."""

    def __init__(self, work: Callable[[Any], Any], part: Any) -> None:
        self._read_end, write_end = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            _compute_and_exit(work, part, write_end)
        os.close(write_end)

    def result(self, deadline: float) -> tuple[Any] | None:
        """The result in a tuple, or None when the process ended without one or the deadline passed."""
        pieces: list[bytes] = []
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([self._read_end], [], [], left)
            if not ready:
                return None
            piece = os.read(self._read_end, _CHUNK_BYTES)
            if not piece:
                return (pickle.loads(b"".join(pieces)),) if pieces else None
            pieces.append(piece)
        return None

    def kill(self) -> None:
        """End the process, if it has not ended, and forget it."""
        os.close(self._read_end)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)


def _compute_and_exit(work: Callable[[Any], Any], part: Any, write_end: int) -> None:
    """The child's whole life; it never returns, and a failure leaves the pipe empty."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
        data = memoryview(pickle.dumps(work(part)))
        while data:
            data = data[os.write(write_end, data) :]
        status = 0
    finally:
        os._exit(status)
