"""Memory in pages of two megabytes: a processor finds its way in them three times as fast where it reads it all.

Measured in a virtual machine: 12 GB/s in pages of four kilobytes, 34 in these (`docs/log.md`). Linux grants them
where it is asked to; elsewhere, and where they are turned off, the memory is just memory.
"""

import contextlib
import math
import mmap

import torch
from torch import Tensor

_PAGE_BYTES = 2 << 20
_LINE_BYTES = 64
_LARGEST_CHUNK = 256 << 20


class HugePages:
    """Tensors cut from large pieces of memory, which live as long as one of their tensors does."""

    def __init__(self) -> None:
        self._chunk = torch.empty(0, dtype=torch.uint8)
        self._used = self._total = 0

    def empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """As `torch.empty`, on the CPU."""
        size = -(-math.prod(shape) * dtype.itemsize // _LINE_BYTES) * _LINE_BYTES
        if size > self._chunk.numel() - self._used:
            # as much again as there is: a small model shall not take hundreds of megabytes
            wanted = max(size, min(self._total, _LARGEST_CHUNK))
            self._chunk, self._used = _pages(-(-wanted // _PAGE_BYTES) * _PAGE_BYTES), 0
            self._total += self._chunk.numel()
        piece = self._chunk[self._used : self._used + size]
        self._used += size
        return piece[: math.prod(shape) * dtype.itemsize].view(dtype).view(shape)


def _pages(size: int) -> Tensor:
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # some systems have none
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)
