"""The ledger: a run's deterministic facts, one JSON object a line, each carrying the hash of the line before.

After a kill the run recomputes the steps since its last resume point. `rewind` puts the ledger back there,
and every line appended from then on must equal the one already written, byte for byte, until it grows again.

Anyone can check a link with a shell: `sed -n 41p ledger.jsonl | sha256sum` is the `prev` of the next line.
What the chain cannot show is lines cut off the end, or all of it written anew: see `seal.py`.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from clearseek.config.errors import RunError
from clearseek.ledger.append import LineFile
from clearseek.ledger.lines import FIRST_PREV, encode_line, read_back, split_lines
from clearseek.ledger.verifier import FORMAT

_RESERVED = frozenset({"line", "prev", "kind", "stage"})


class Head(NamedTuple):
    """The end of a verified chain: how many lines, the hash of the last, and whether a torn line follows."""

    num_lines: int
    sha256: str
    torn: bool


class Ledger(LineFile):
    """Appends records to `path`. Opening checks the chain; RunError names the first line that breaks it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        check_format(path)  # before a torn line of it would be dropped
        super().__init__(path)
        try:
            self._hashes = _check_chain(self.lines, self.path)
        except BaseException:
            self.close()
            raise
        self._cursor = len(self.lines)

    def __len__(self) -> int:
        """The number of lines up to here: what a resume point stores and hands back to `rewind`."""
        return self._cursor

    @property
    def head(self) -> str:
        """The hash of the last line up to here, 64 zeros before the first."""
        return self._hashes[self._cursor - 1] if self._cursor else FIRST_PREV

    @property
    def replaying(self) -> bool:
        """Whether the next appended record is compared with one already written."""
        return self._cursor < len(self.lines)

    def rewind(self, num_lines: int) -> None:
        """Goes back to `num_lines` lines; what is appended next is compared, then grows."""
        if num_lines < 0:
            raise ValueError(f"num_lines must be at least 0, got {num_lines}")
        if num_lines > len(self.lines):
            raise RunError(
                f"{self.path}: the resume point was made at line {num_lines} but the ledger has only "
                f"{len(self.lines)} lines; restore the file or start a new run"
            )
        self._cursor = num_lines

    def append(self, kind: str, stage: str | None = None, **fields: Any) -> None:
        """Adds a record, or in replay proves that it is the one already there.

        Raises RunError when the disk refuses the line or when a recomputed line differs from the written one.
        """
        if reserved := _RESERVED & fields.keys():
            raise ValueError(f"a record's field may not be called {sorted(reserved)[0]}")
        record: dict[str, Any] = {"line": self._cursor, "prev": self.head, "kind": kind}
        if stage is not None:
            record["stage"] = stage
        line = encode_line(record | fields, canonical=True)
        if self.replaying:
            self._compare(line)
        else:
            self.write(line)
            self._hashes.append(_sha256(line))
        self._cursor += 1

    def _compare(self, line: bytes) -> None:
        written = self.lines[self._cursor]
        if line == written:
            return
        if encode_line(_values(written), canonical=True) == line:
            raise RunError(
                f"{self.path}: line {self._cursor} is in the form of an older clearseek, which can't be continued; "
                "start a new run with another --out"
            )
        field, before, now = first_difference(_values(written), _values(line))
        raise RunError(
            f"{self.path}: line {self._cursor}, recomputed after a resume, differs in `{field}`: "
            f"written {before}, now {now}; the code, the data or the machine changed: start a new run "
            "with another --out"
        )


def check_format(path: str | os.PathLike[str]) -> None:
    """RunError where the first line says that the ledger is of a newer form; other faults are for readers to name."""
    try:
        with Path(path).open("rb") as file:
            told = json.loads(file.readline())["format"]
    except (OSError, ValueError, LookupError, TypeError):
        return
    if type(told) is not int or not 1 <= told <= FORMAT:
        raise RunError(
            f"{path} is of format {told!r}, this clearseek reads up to {FORMAT}: a newer one wrote it; use that one"
        )


def read(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records of a ledger in order, without checking the chain; a torn last line is left out.

    Raises RunError naming the line that is not JSON, or a newer form. A missing file has no records.
    """
    check_format(path)
    try:
        lines, _ = split_lines(Path(path).read_bytes())
    except FileNotFoundError:
        return []
    return [_parse(line, n, Path(path)) for n, line in enumerate(lines)]


def verify(path: str | os.PathLike[str]) -> Head:
    """Walks the chain; RunError names the first line that breaks it, FileNotFoundError a missing file."""
    check_format(path)
    lines, torn = split_lines(Path(path).read_bytes())
    hashes = _check_chain(lines, Path(path))
    for n, line in enumerate(lines):
        _parse(line, n, Path(path))
    return Head(len(lines), hashes[-1] if hashes else FIRST_PREV, bool(torn))


def _check_chain(lines: list[bytes], path: Path) -> list[str]:
    """The hash of every line; the number and prev stand first, so that no line need be parsed."""
    hashes: list[str] = []
    for n, line in enumerate(lines):
        prev = hashes[-1] if hashes else FIRST_PREV
        if not line.startswith(b'{"line":%d,"prev":"%s",' % (n, prev.encode())):
            raise RunError(f"{path}: line {n} does not follow from the line before it: {_break(line, n)}")
        hashes.append(_sha256(line))
    return hashes


def _break(line: bytes, n: int) -> str:
    try:
        found = json.loads(line)["line"]
    except (ValueError, KeyError, TypeError):
        return "it is not a record of a ledger"
    if found != n:
        return f"it says it is line {found}; lines were taken out, added or moved"
    return "this line or the one before it was changed after it was written"


def _parse(line: bytes, n: int, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise RunError(f"{path}: line {n} is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise RunError(f"{path}: line {n} is not a JSON object")
    return {key: read_back(value) for key, value in record.items()}


def _values(line: bytes) -> Any:
    return read_back(json.loads(line))


def _sha256(line: bytes) -> str:
    return hashlib.sha256(line).hexdigest()


def first_difference(before: Any, now: Any, field: str = "") -> tuple[str, str, str]:
    """The name and both values of the first field, going into tables, in which two records differ."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in before | now:
            old, new = before.get(key, _ABSENT), now.get(key, _ABSENT)
            if _shown(old, None) != _shown(new, None):
                return first_difference(old, new, f"{field}.{key}" if field else key)
        return field or "the order of the fields", ", ".join(before), ", ".join(now)
    return field, _shown(before), _shown(now)


_ABSENT = object()


def _shown(value: Any, limit: int | None = 120) -> str:
    text = "nothing" if value is _ABSENT else json.dumps(value, ensure_ascii=False)
    return text if limit is None or len(text) <= limit else text[: limit - 3] + "..."
