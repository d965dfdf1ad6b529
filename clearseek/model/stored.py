"""Safetensors files: opened with torn ones named, written with a full disk known as such. Never a pickle.

Weights are read, not mapped, unless `mapped` is asked: a mapped file that is cut short while it is in use kills the
process, one that is overwritten changes the weights.
"""

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from clearseek.config.errors import InputError, RunError
from clearseek.model.safetensors_header import ELSEWHERE, read_header

FLOATS = frozenset({"F64", "F32", "F16", "BF16"})  # safetensors' names of what weights may be stored in
MAX_JSON_BYTES = 100_000_000

TORCH_DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "U16": torch.uint16, "I16": torch.int16,
    "U32": torch.uint32, "I32": torch.int32, "U64": torch.uint64, "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
    "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64,
    "C64": torch.complex64,
}  # fmt: skip


class StoredTensors:
    """An open safetensors file: `entries` say what it holds, the methods read it. Any number of threads."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self.path = path
        self.entries, self.metadata = read_header(file, path)
        self._file, self._turn = file, threading.Lock()

    def fileno(self) -> int:
        """The descriptor of the open file, to map it with."""
        return self._file.fileno()

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU. Raises RunError where the file has become shorter or can't be read."""
        entry = self.entries[name]
        tensor = torch.empty(entry.shape, dtype=self._dtype(name))
        self.read_into(tensor.reshape(-1), name)
        return tensor

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """`tensor[start:stop]` of a tensor with at least one dimension; otherwise as `read`."""
        shape = self.entries[name].shape
        tensor = torch.empty((stop - start, *shape[1:]), dtype=self._dtype(name))
        self.read_into(tensor.reshape(-1), name, start)
        return tensor

    def read_into(self, flat: Tensor, name: str, start: int = 0) -> None:
        """Fill `flat`, contiguous and of the stored dtype, from the tensor's row `start` on."""
        if not flat.numel():
            return
        entry = self.entries[name]
        offset = entry.start + (start * (entry.stop - entry.start) // entry.shape[0] if start else 0)
        self._read_at(offset, flat.view(torch.uint8).numpy().data)

    def _dtype(self, name: str) -> torch.dtype:
        stored = self.entries[name].dtype
        if stored not in TORCH_DTYPES:
            raise InputError(f"{self.path}: {name} is stored as {stored}, which can't be read here")
        return TORCH_DTYPES[stored]

    def _read_at(self, offset: int, buffer: memoryview) -> None:
        try:
            while buffer:
                count = self._read_some(offset, buffer)
                if not count:
                    raise RunError(f"{self.path}: has become shorter since it was opened; {ELSEWHERE}")
                offset, buffer = offset + count, buffer[count:]
        except OSError as error:
            raise RunError(f"{self.path}: can't be read ({error.strerror or error}); {ELSEWHERE}") from error

    def _read_some(self, offset: int, buffer: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(self._file.fileno(), [buffer], offset)
        with self._turn:  # Windows: a place of its own for every reader is not to be had
            self._file.seek(offset)
            return self._file.readinto(buffer)  # type: ignore[attr-defined]


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write tensors of any dtype and device under their names. Raises OSError when the disk refuses."""
    plain = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(plain, path, metadata=dict(metadata or {}))
    except SafetensorError as error:
        if code := re.search(r"os error (\d+)", str(error)):
            number = int(code[1])
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, on the CPU, and its metadata. Raises RunError if it is torn or missing."""
    with open_tensors(path) as file:
        return {name: file.read(name) for name in file.entries}, file.metadata


@contextmanager
def open_tensors(path: Path) -> Iterator[StoredTensors]:
    """A safetensors file to read from; RunError names a torn or missing one."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError as error:
        raise RunError(f"{path}: missing; {ELSEWHERE}") from error
    except OSError as error:
        raise RunError(f"{path}: can't be read ({error.strerror or error}); {ELSEWHERE}") from error
    with file:
        yield StoredTensors(file, path)


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a checkpoint; InputError names the file and the line that breaks it."""
    try:
        table = json.loads(_small(path))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give a directory in Hugging Face format") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    except RecursionError:
        raise InputError(f"{path}: nests too deeply for what it is; copy or download it again") from None
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); copy or download it again") from error
    if not isinstance(table, dict):
        raise InputError(f"{path}: is JSON but not an object; copy or download it again")
    return table


def _small(path: Path) -> bytes:
    """The bytes of a file that is no larger than any sound one."""
    with path.open("rb") as file:
        data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        raise ValueError(f"it has more than {MAX_JSON_BYTES} bytes")
    return data
