"""One record as one canonical line of bytes, and a file of such lines read back.

Apart from the writer so that readers (report, doctor, a dashboard) need no open ledger.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

FIRST_PREV = "0" * 64
_HEXADECIMAL = re.compile(r"(=*)(-?0x[01]\.[0-9a-f]+p[+-][0-9]+)")


def plain(value: Any, where: str) -> Any:
    """Turns a value into what JSON can hold; floats that are not finite become "nan", "inf" or "-inf".

    Raises TypeError naming `where` for anything else (a tensor, a path, an integer key): convert it first.
    """
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else repr(float(value))
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"{where} has the key {key!r}; keys of a record must be strings")
        return {str(key): plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}; a record holds JSON values only")


def exact(value: Any) -> Any:
    """A JSON value without decimal fractions: floats as `float.hex` writes them, which loses no bit and rounds nothing.

    A text that looks like one gets an equals sign in front, which `read_back` takes off again.
    """
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, str):
        return f"={value}" if _HEXADECIMAL.fullmatch(value) else value
    if isinstance(value, dict):
        return {exact(key): exact(item) for key, item in value.items()}
    return [exact(item) for item in value] if isinstance(value, list) else value


def read_back(value: Any) -> Any:
    """What `exact` was given."""
    if isinstance(value, str):
        if "0x" not in value or (found := _HEXADECIMAL.fullmatch(value)) is None:
            return value
        return value[1:] if found[1] else float.fromhex(value)
    if isinstance(value, dict):
        return {read_key(key): read_back(item) for key, item in value.items()}
    return [read_back(item) for item in value] if isinstance(value, list) else value


def read_key(key: str) -> str:
    """A key that `exact` was given."""
    return key[1:] if key.startswith("=") and _HEXADECIMAL.fullmatch(key) else key


def encode_line(record: Mapping[str, Any], canonical: bool = False) -> bytes:
    """The bytes of a record with its newline: keys in the caller's order, compact, UTF-8; `canonical` as `exact`."""
    clean = {key: plain(value, key) for key, value in record.items()}
    if canonical:
        clean = exact(clean)
    text = json.dumps(clean, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    try:
        return text.encode() + b"\n"
    except UnicodeEncodeError:  # half a surrogate pair has no UTF-8; escapes can hold it
        return json.dumps(clean, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def number(value: Any) -> float | None:
    """A field read back as a number, "nan" and "inf" included; None when it is absent or no number."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    return float(value) if value in ("nan", "inf", "-inf") else None


def split_lines(data: bytes) -> tuple[list[bytes], int]:
    """Whole lines (newlines kept) and the number of bytes after the last newline (a torn line)."""
    *whole, torn = data.split(b"\n")
    return [line + b"\n" for line in whole], len(torn)


def tolerant_records(path: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """Every line that is a JSON object; torn or foreign lines are passed over. A missing file has none."""
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        return
    for line in data.split(b"\n"):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            yield read_back(record)


def file_sha256(path: Path) -> str:
    """The sha256 of a file in hex, as a record names it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
