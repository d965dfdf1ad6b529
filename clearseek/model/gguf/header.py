"""The header of a GGUF file: its metadata and where each tensor lies.

Ours, not the gguf library's, for two reasons: `clearseek info` needs no library, and every length that a header
claims is compared with the file before anything is read or allocated (the library's reader believes it).
Source: ggml's docs/gguf.md.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearseek.config.errors import InputError

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {
    0: "u1",
    1: "i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_STRING, _ARRAY = 8, 9
_MOST_DIMENSIONS = 4

# type number: name, weights in a block, bytes of a block
TYPES = {
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    30: ("BF16", 1, 2),
    39: ("MXFP4", 32, 17),
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies: `shape` as published (rows before columns), `offset` in bytes from the file's start."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A GGUF file whose header was read and found to fit the file."""

    path: Path
    metadata: dict[str, Any]
    tensors: dict[str, StoredTensor]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.metadata.get("general.architecture", ""))

    def bytes_of(self, tensor: StoredTensor) -> np.ndarray:
        """The tensor's bytes, uint8 [num_bytes], mapped and not yet read."""
        return np.memmap(self.path, np.uint8, "r", tensor.offset, (tensor.num_bytes,))


def is_gguf(path: Path) -> bool:
    """Whether a path is a file that GGUF's name or its first bytes mark as one."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def read_header(path: Path) -> GgufFile:
    """Metadata and tensors of a GGUF file; raises InputError for one that is torn, of another version, or lies."""
    try:
        mapped: Any = np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as a GGUF file ({error})") from error
    data = memoryview(mapped)
    cursor = _Cursor(path, data)
    if bytes(cursor.take(4)) != _MAGIC:
        raise InputError(f"{path}: is not a GGUF file; its first bytes are not GGUF")
    version = cursor.number("<I")
    if version not in _VERSIONS:
        raise InputError(f"{path}: is GGUF version {version}; known ones: 2 and 3, little-endian")
    num_tensors, num_keys = cursor.count("tensors", 24), cursor.count("keys", 12)
    metadata = _unique(path, (cursor.key_value() for _ in range(num_keys)))
    infos = [cursor.tensor_info() for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise InputError(f"{path}: general.alignment = {alignment!r} has to be a power of two")
    start = -(-cursor.place // alignment) * alignment
    tensors = _unique(path, ((info[0], _placed(path, start, *info)) for info in infos))
    _check_places(path, tensors, len(data))
    return GgufFile(path, metadata, tensors)


class _Cursor:
    """Reads forward through the header; whatever would leave the file is an InputError."""

    def __init__(self, path: Path, data: memoryview) -> None:
        self.path, self.data, self.place = path, data, 0

    def take(self, num_bytes: int) -> memoryview:
        """The next bytes."""
        if num_bytes > len(self.data) - self.place:
            raise InputError(f"{self.path}: ends in the middle of its header; copy or download it again")
        self.place += num_bytes
        return self.data[self.place - num_bytes : self.place]

    def number(self, form: str) -> int:
        """The next integer, in `struct`'s form."""
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def count(self, what: str, least_bytes: int) -> int:
        """A number of things that take at least so many bytes each; more than the file can hold is an error."""
        count = self.number("<Q")
        if count * least_bytes > len(self.data) - self.place:
            raise InputError(f"{self.path}: claims {count} {what}, more than the file can hold")
        return count

    def string(self) -> str:
        """The next string."""
        raw = bytes(self.take(self.count("bytes of a string", 1)))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: a string in its header is not UTF-8 ({raw[:20]!r}…)") from error

    def key_value(self) -> tuple[str, Any]:
        """The next key and its value."""
        key = self.string()
        return key, self._value(self.number("<I"), key)

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self.string()
        if kind in _SCALARS:
            return self._scalars(kind, 1)[0]
        if kind != _ARRAY:
            raise InputError(f"{self.path}: {key} is of type {kind}, which GGUF has not got")
        kind = self.number("<I")
        if kind == _STRING:
            return [self.string() for _ in range(self.count("strings", 8))]
        if kind in _SCALARS:
            return self._scalars(kind, self.count("numbers", np.dtype(_SCALARS[kind]).itemsize))
        raise InputError(f"{self.path}: {key} is an array of type {kind}; only strings and numbers are known")

    def _scalars(self, kind: int, count: int) -> list[Any]:
        dtype = np.dtype(_SCALARS[kind])
        values = np.frombuffer(self.take(count * dtype.itemsize), dtype)
        if dtype == np.float32:  # as they were meant: 1e-06, not 9.999999974752427e-07
            return [float(str(value)) for value in values]
        return list(values.tolist())

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape as published, type number and offset of the next tensor."""
        name = self.string()
        dimensions = self.number("<I")
        if dimensions > _MOST_DIMENSIONS:
            raise InputError(
                f"{self.path}: {name} has {dimensions} dimensions; at most {_MOST_DIMENSIONS} are known"
            )
        shape = tuple(self.number("<Q") for _ in range(dimensions))[::-1]
        return name, shape, self.number("<I"), self.number("<Q")


def _placed(
    path: Path, start: int, name: str, shape: tuple[int, ...], kind: int, offset: int
) -> StoredTensor:
    if kind not in TYPES:
        raise InputError(
            f"{path}: {name} is stored in type {kind}; known ones: {', '.join(entry[0] for entry in TYPES.values())}"
        )
    type_name, block, block_bytes = TYPES[kind]
    if shape and shape[-1] % block:
        raise InputError(
            f"{path}: rows of {name} ({shape[-1]}) are not whole blocks of {type_name} ({block})"
        )
    return StoredTensor(name, shape, type_name, start + offset, math.prod(shape) // block * block_bytes)


def _check_places(path: Path, tensors: dict[str, StoredTensor], size: int) -> None:
    """Raise InputError for a tensor that is empty, leaves the file, or lies over another."""
    end = 0
    for tensor in sorted(tensors.values(), key=lambda tensor: tensor.offset):
        if tensor.offset + tensor.num_bytes > size or not tensor.num_bytes:
            raise InputError(
                f"{path}: {tensor.name} {list(tensor.shape)} does not lie within the file; it is torn, "
                "copy or download it again"
            )
        if tensor.offset < end:
            raise InputError(f"{path}: {tensor.name} lies over another tensor; copy or download it again")
        end = tensor.offset + tensor.num_bytes


def _unique(path: Path, pairs: Iterator[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"{path}: {name} is there twice; copy or download it again")
        found[name] = value
    return found
