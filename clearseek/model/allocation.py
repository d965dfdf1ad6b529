"""Keeps freed memory for the next step: glibc returns large blocks at once, and a new one faults page by page.

At ten million parameters a training step spends a tenth of its time on pages that it had a moment ago.
"""

import ctypes
import functools
import sys

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # mallopt's names for them, malloc.h


@functools.cache
def keep_freed_memory() -> bool:
    """Tell the C library to hold on to freed blocks, large ones too; False where it is not glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, -1)) and bool(mallopt(_MMAP_MAX, 0))
