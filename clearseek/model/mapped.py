"""Parameters that are the checkpoint's own pages, where it stores them as the decoder holds them.

Nothing is copied, and the system lends the same pages to every process. Writing to such a parameter makes a
private copy of the page; the file never changes. The price is that of every mapped file: one that is cut short in
place while it is in use ends the process. Checkpoints that are replaced by renaming, as ours are, stay as they were.
"""

import ctypes
import functools
import mmap
import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from clearseek.model.families.pieces import Piece
from clearseek.model.sources import Plain, Source
from clearseek.model.stored import TORCH_DTYPES, StoredTensors

_MADV_POPULATE_READ = 22  # sys/mman.h, since Linux 5.14; older ones refuse and pages come when they are used

Maps = dict[StoredTensors, mmap.mmap]


def map_parameters(
    parameters: Mapping[str, Tensor],
    pieces: Iterable[Piece],
    sources: Mapping[str, Source],
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Tensors in place of those `parameters`, by name, whose bytes lie in one file in one run, in `dtype`."""
    if os.name != "posix":  # elsewhere a file that is mapped can't be replaced
        return {}
    parts: dict[str, list[tuple[Piece, Source]]] = defaultdict(list)
    for piece in pieces:
        if piece.kind == "own" and piece.ours in parameters:
            parts[piece.ours].append((piece, sources[piece.published]))
    maps: Maps = {}
    found = {}
    for name, own in parts.items():
        run = _one_run(own, parameters[name], dtype)
        if run is not None:
            found[name] = _mapped(*run, parameters[name].shape, dtype, maps)
    return found


def _one_run(
    own: list[tuple[Piece, Source]], parameter: Tensor, dtype: torch.dtype
) -> tuple[StoredTensors, int] | None:
    """The file and the offset of a parameter's bytes; None where they are no run, or of another dtype."""
    places = [(piece.of(parameter), source) for piece, source in own]
    if not all(isinstance(source, Plain) and place.is_contiguous() for place, source in places):
        return None
    places.sort(key=lambda pair: pair[0].storage_offset())
    file, start, elements = None, 0, 0
    for place, source in places:
        assert isinstance(source, Plain)
        entry = source.file.entries[source.name]
        if file is None:
            file, start = source.file, entry.start
        follows = source.file is file and entry.start == start + elements * dtype.itemsize
        if not follows or place.storage_offset() != elements or TORCH_DTYPES.get(source.dtype) != dtype:
            return None
        elements += place.numel()
    is_whole = file is not None and elements == parameter.numel() > 0 and start % dtype.itemsize == 0
    return (file, start) if is_whole and file is not None else None


def _mapped(file: StoredTensors, start: int, shape: torch.Size, dtype: torch.dtype, maps: Maps) -> Tensor:
    if file not in maps:
        maps[file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    tensor = torch.frombuffer(maps[file], dtype=dtype, count=shape.numel(), offset=start).view(shape)
    _read_ahead(tensor)
    return tensor


def _read_ahead(tensor: Tensor) -> None:
    """Have a tensor's pages now, so that using it waits for nothing."""
    madvise = _madvise()
    if madvise is not None:
        start = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
        length = tensor.data_ptr() + tensor.nbytes - start
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(length), _MADV_POPULATE_READ)


@functools.cache
def _madvise() -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), "madvise", None) if sys.platform == "linux" else None
