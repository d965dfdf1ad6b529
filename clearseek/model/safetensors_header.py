"""The header of a safetensors file, checked whole before a byte of weights is read or memory is allocated.

Apart from `stored` because it needs neither torch nor the weights, and is fuzzed alone. The format: 8 bytes
of header length (little-endian), a JSON object, the tensors' bytes without holes
(github.com/huggingface/safetensors, README, "Format").
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

from clearseek.config.errors import RunError

MAX_HEADER_BYTES = 100_000_000  # the format's own bound
ELSEWHERE = "copy or download it again, or use another checkpoint"
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "F8_E8M0": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip

_MAX_SIZE = 2**63  # of a dimension and of a tensor, in bytes
_BRACKETS_FROM, _BYTES_PER_BRACKET = 10_000_000, 8  # an entry of a tensor has 3 in 50 bytes at the least
_KEYS = {"dtype", "shape", "data_offsets"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a file: its dtype by the format's name, its shape, and its bytes' place in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class _Torn(ValueError):
    """What is wrong with a header, without the path."""


def read_header(file: BinaryIO, path: Path) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors of an open file, by name in the order of their bytes, and its metadata.

    Raises RunError naming `path` and the tensor where the header is torn, lies about sizes, leaves holes or
    overlaps. Memory stays within a small multiple of the header, whatever it says.
    """
    try:
        size = file.seek(0, 2)
        length = _header_length(file, size)
        table = _parse(file.read(length))
        metadata = _metadata(table.pop("__metadata__", {}))
        entries = {name: _entry(name, fields, 8 + length) for name, fields in table.items()}
        return _in_order(entries, 8 + length, size), metadata
    except _Torn as error:
        raise RunError(f"{path}: torn or not a safetensors file ({error}); {ELSEWHERE}") from None
    except OSError as error:
        raise RunError(f"{path}: can't be read ({error.strerror or error}); {ELSEWHERE}") from error


def _header_length(file: BinaryIO, size: int) -> int:
    file.seek(0)
    if size < 8:
        raise _Torn(f"{size} bytes are too few for a header")
    length = int.from_bytes(file.read(8), "little")
    if length > MAX_HEADER_BYTES:
        raise _Torn(f"a header of {length} bytes is larger than the format's {MAX_HEADER_BYTES}")
    if length > size - 8:
        raise _Torn(f"a header of {length} bytes in a file of {size}")
    return length


def _parse(header: bytes) -> dict[str, Any]:
    brackets = header.count(b"[") + header.count(b"{") if len(header) > _BRACKETS_FROM else 0
    if brackets > len(header) // _BYTES_PER_BRACKET:
        raise _Torn(f"{brackets} brackets in a header of {len(header)} bytes, more than tensors have")
    try:
        table = json.loads(header.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except RecursionError:
        raise _Torn("the header nests too deeply") from None
    except ValueError as error:
        raise error if isinstance(error, _Torn) else _Torn(f"the header is not JSON: {error}") from None
    if not isinstance(table, dict):
        raise _Torn("the header is not a JSON object")
    return table


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise _Torn(f"{_shown(twice)} is there twice")
    return table


def _no_constant(text: str) -> None:
    raise _Torn(f"{text} is not a size")


def _metadata(table: Any) -> dict[str, str]:
    if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
        raise _Torn("__metadata__ is not an object of strings")
    return table


def _entry(name: str, fields: Any, base: int) -> Entry:
    if not name.isprintable():
        raise _Torn(f"{_shown(name)} is no name: it has characters that can't be printed")
    if not isinstance(fields, dict) or fields.keys() != _KEYS:
        raise _Torn(f"{_shown(name)} has to have dtype, shape and data_offsets and nothing more")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _Torn(f"{_shown(name)} has the unknown dtype {_shown(dtype)}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise _Torn(f"{_shown(name)} has sizes that are not whole numbers from 0 to 2^63")
    bits = _num_bits(shape, DTYPE_BITS[dtype])
    start, stop = offsets
    if bits is None or bits != 8 * (stop - start):
        raise _Torn(
            f"{_shown(name)}: {dtype} with shape {_shown(shape)} does not fill bytes {start} to {stop} of the data"
        )
    return Entry(dtype, tuple(shape), base + start, base + stop)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < _MAX_SIZE for value in values)


def _num_bits(shape: list[int], bits: int) -> int | None:
    """The bits of a tensor, or None where they are too many; thousands of dimensions take no time to refuse."""
    if 0 in shape:
        return 0
    wide = [size for size in shape if size > 1]
    return None if len(wide) > _MAX_SIZE.bit_length() else prod(wide) * bits


def _in_order(entries: Mapping[str, Entry], base: int, size: int) -> dict[str, Entry]:
    """The entries by place; each has to begin where the one before it ends, and the last at the file's end."""
    ordered = sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop))
    end = base
    for name, entry in ordered:
        if entry.start != end:
            how = "overlaps" if entry.start < end else "leaves a hole after"
            raise _Torn(f"{_shown(name)} {how} what is stored before it")
        end = entry.stop
    if end != size:
        raise _Torn(f"the tensors end at byte {end} of a file of {size}")
    return dict(ordered)


def _shown(value: Any) -> str:
    """A name or value from the file, short and printable, for a message."""
    if isinstance(value, list):
        return str(value) if len(value) <= 8 else f"of {len(value)} dimensions"
    text = value if isinstance(value, str) else f"({type(value).__name__})"
    return "".join(letter if letter.isprintable() else "?" for letter in text[:200])
