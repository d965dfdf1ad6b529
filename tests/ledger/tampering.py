"""Hands on a sealed run: its lines read, changed and written back, the chain mended, the seal made anew."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from clearseek.ledger.seal import seal


def lines_of(run: Path) -> list[bytes]:
    """Every line with its newline."""
    return (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def write_lines(run: Path, lines: Iterable[bytes]) -> None:
    """These lines for the ledger."""
    (run / "ledger.jsonl").write_bytes(b"".join(lines))


def records_of(run: Path) -> list[dict[str, Any]]:
    """Every line parsed."""
    return [json.loads(line) for line in lines_of(run)]


def chained(records: Iterable[dict[str, Any]]) -> list[bytes]:
    """Records written anew, every link right."""
    lines, prev = [], "0" * 64
    for number, record in enumerate(records):
        record = {**record, "line": number, "prev": prev}
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
        try:
            lines.append(text.encode() + b"\n")
        except UnicodeEncodeError:
            lines.append(json.dumps(record, separators=(",", ":")).encode() + b"\n")
        prev = hashlib.sha256(lines[-1]).hexdigest()
    return lines


def edit(run: Path, number: int, old: bytes, new: bytes) -> None:
    """Other bytes within one line."""
    lines = lines_of(run)
    assert old in lines[number], lines[number]
    lines[number] = lines[number].replace(old, new, 1)
    write_lines(run, lines)


def change_byte(path: Path, at: int) -> None:
    """One bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[at % len(raw)] ^= 1
    path.write_bytes(raw)


def signed_anew(run: Path, records: Iterable[dict[str, Any]]) -> None:
    """What only the owner of the key can do: other records, the chain mended, and sealed."""
    write_lines(run, chained(records))
    seal(run, lines_of(run))
