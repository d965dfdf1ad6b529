"""Fewer page faults: freed memory is kept for the next step, new memory comes in large pages where asked for.

glibc returns large blocks at once, and a new one faults page by page.

At ten million parameters a training step spends a tenth of its time on pages that it had a moment ago.
"""

import ctypes
import functools
import sys

from torch import Tensor

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's names for them, malloc.h
_MADV_HUGEPAGE, _LARGE_PAGE = 14, 2 << 20  # madvise's, sys/mman.h, and the size on x86-64 and most of ARM


@functools.cache
def keep_freed_memory() -> bool:
    """Tell the C library to hold on to freed blocks, large ones too; False where it is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, -1)) and bool(mallopt(_MMAP_MAX, 0))


def use_large_pages(tensor: Tensor) -> bool:
    """Ask the kernel for pages of 2 MiB under a tensor not yet written to; False where there is no asking.

    A fresh page costs the same whether it has 4 KiB or 2 MiB, up to the clearing.
    """
    madvise = getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
    start = -(-tensor.data_ptr() // _LARGE_PAGE) * _LARGE_PAGE
    length = (tensor.data_ptr() + tensor.nbytes) // _LARGE_PAGE * _LARGE_PAGE - start
    if madvise is None or tensor.device.type != "cpu" or length <= 0:
        return False
    return bool(madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_HUGEPAGE) == 0)
