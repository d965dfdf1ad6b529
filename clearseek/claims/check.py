"""Holds every measured figure of a document to its record."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

from clearseek.claims.blocks import Block, blocks_of
from clearseek.claims.figures import Figure, numbers_in
from clearseek.config.errors import InputError

RECORDS = Path("docs/records")
LOG = "log.md"  # a book of records itself: its entries carry date, machine and command
_DOCUMENTS = ("README*.md", "docs/*.md", "clearseek/models/*/*.md")


@dataclass(frozen=True)
class Fault:
    """One block whose figures don't hold, and why."""

    document: Path
    line: int
    why: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.why}"


@dataclass(frozen=True)
class Checked:
    """What was looked at: figures that agree with their records, and the faults."""

    documents: int
    figures: int
    shown: int
    faults: tuple[Fault, ...]


class _Wrong(Exception):
    """Why a block's figures don't hold."""


def documents_of(root: Path) -> list[Path]:
    """The documents of a checkout that must carry their sources."""
    found = [path for pattern in _DOCUMENTS for path in sorted(root.glob(pattern))]
    return [path for path in found if path.name != LOG]


def check_documents(documents: Sequence[Path], root: Path = Path()) -> Checked:
    """Look at every figure. Raises InputError for a document that can't be read; faults are in the result."""
    figures = shown = 0
    faults = []
    for path in documents:
        for block in blocks_of(_read(path)):
            try:
                held = _check_block(block, path.parent, root)
            except _Wrong as error:
                faults.append(Fault(path, block.line, str(error)))
            else:
                figures, shown = figures + held[0], shown + held[1]
    return Checked(len(documents), figures, shown, tuple(faults))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not text in UTF-8") from None


def _check_block(block: Block, folder: Path, root: Path) -> tuple[int, int]:
    """How many figures and how many shown outputs hold."""
    kind, words = block.source or ("", "")
    if kind == "not measured":
        if len(words) < 8:
            raise _Wrong(f"`not measured: {words}` has to say why")
        return 0, 0
    if block.kind == "fence":
        return 0, _check_fence(block, kind, words, folder, root)
    figures = block.figures
    if kind == "claim":
        return _check_figures(figures, words, folder, root), 0
    if kind == "logged":
        return _check_logged(figures, words, root), 0
    if figures:
        named = ", ".join(figure.text for figure in figures[:5])
        raise _Wrong(
            f"no <!-- claim: RECORD PATH ... --> says where {named} come{'s' * (len(figures) == 1)} from"
        )
    return 0, 0


def _check_fence(block: Block, kind: str, words: str, folder: Path, root: Path) -> int:
    if kind == "shown":
        _check_shown(block, words, folder, root)
        return 1
    if _shows_figures(block.text):
        raise _Wrong("a command's output with figures has no <!-- shown: RECORD PATH --> behind it")
    return 0


def _shows_figures(fence: str) -> bool:
    """Whether a fenced block is text (not code) with figures in it."""
    head, _, body = fence.partition("\n")
    return head.strip().strip("`~") == "text" and bool(
        Block(0, "text", body.rpartition("\n")[0], None).figures
    )


def _check_shown(block: Block, words: str, folder: Path, root: Path) -> None:
    name, _, path = words.partition(" ")
    text = value_at(load_record(name, folder, root), path, name)
    body = "\n".join(block.text.split("\n")[1:-1])
    if not isinstance(text, str) or text.rstrip("\n") != body:
        raise _Wrong(
            f"the block isn't what record {name} has at {path}: it was changed, or the record was made anew"
        )


def _check_logged(figures: Sequence[Figure], heading: str, root: Path) -> int:
    there = numbers_in(_entry(root / "docs" / LOG, heading))
    for figure in figures:
        written = figure.value / figure.factor if " " not in figure.text else None
        if written is None or written not in there:
            raise _Wrong(f"{figure.text} does not stand in the log's entry {heading!r}")
    return len(figures)


def _entry(log: Path, heading: str) -> str:
    """The text of the one entry of the log with this heading."""
    entries = [
        part for part in re.split(r"^## ", _read(log), flags=re.MULTILINE) if part.startswith(f"{heading}\n")
    ]
    if len(entries) != 1:
        raise _Wrong(
            f"the log has {len(entries) or 'no'} entr{'ies' if len(entries) > 1 else 'y'} {heading!r}"
        )
    return entries[0]


def _check_figures(figures: Sequence[Figure], words: str, folder: Path, root: Path) -> int:
    name, *short = words.split()
    paths = [path for word in short for path in expanded(word)]
    if len(paths) != len(figures):
        written = ", ".join(figure.text for figure in figures)
        raise _Wrong(f"{len(figures)} figures ({written}), but the claim has {len(paths)} paths")
    for figure, path in zip(figures, paths, strict=True):
        if ":" in path:  # of another record than the others
            other, _, path = path.partition(":")
            _check_figure(figure, load_record(other, folder, root), path, other)
        else:
            _check_figure(figure, load_record(name, folder, root), path, name)
    return len(figures)


def _check_figure(figure: Figure, record: Any, path: str, name: str) -> None:
    value = number_at(record, path, name)
    if abs(figure.value - value) > figure.half_digit * Decimal("1.0000001"):
        shown = (value / figure.factor).normalize()
        raise _Wrong(f"{figure.text} disagrees with record {name}, which has {shown:.6g} at {path}")


def number_at(record: Any, path: str, name: str) -> Decimal:
    """The number at a path, or the quotient of two, as `a.b/c.d`."""
    above, slash, below = path.partition("/")
    value = _number(record, above, name)
    if not slash:
        return value
    divisor = _number(record, below, name)
    if divisor == 0:
        raise _Wrong(f"record {name} has 0 at {below}: nothing can be divided by it")
    return value / divisor


def _number(record: Any, path: str, name: str) -> Decimal:
    value = value_at(record, path, name)
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        raise _Wrong(f"record {name} has no number at {path}")
    return Decimal(value)


def value_at(record: Any, path: str, name: str) -> Any:
    """What a record has at a path: keys joined by dots; in a list a position, or the item whose `name` that is."""
    here, rest = record, path
    while rest:
        key, rest = _next_key(here, rest)
        if isinstance(here, dict) and key in here:
            here = here[key]
        elif isinstance(here, list) and key.isdigit() and int(key) < len(here):
            here = here[int(key)]
        elif isinstance(here, list) and (named := [item for item in here if _is_named(item, key)]):
            here = named[0]
        else:
            raise _Wrong(f"record {name} has nothing at {path} (no {key!r})")
    return here


def _next_key(here: Any, path: str) -> tuple[str, str]:
    """The first key of a path and the rest; a key may hold dots itself, as `llama.cpp`."""
    keys = (
        [key for key in here if path == key or path.startswith(f"{key}.")] if isinstance(here, dict) else []
    )
    key = max(keys, key=len, default=path.partition(".")[0])
    return key, path[len(key) + 1 :]


def expanded(path: str) -> list[str]:
    """`a.{b,c}.d` as `a.b.d` and `a.c.d`, the last braces first, as a shell does."""
    found = re.search(r"\{([^{}]*)\}", path)
    if found is None:
        return [path]
    return [
        whole
        for part in found[1].split(",")
        for whole in expanded(f"{path[: found.start()]}{part}{path[found.end() :]}")
    ]


def _is_named(item: Any, key: str) -> bool:
    return isinstance(item, dict) and item.get("name") == key


def load_record(name: str, folder: Path, root: Path) -> Any:
    """A record by its name in docs/records, or a .json file beside the document."""
    if not re.fullmatch(r"[\w][\w./-]*", name) or ".." in Path(name).parts:
        raise _Wrong(f"{name!r} is no name of a record")
    path = folder / name if name.endswith(".json") else root / RECORDS / f"{name}.json"
    try:
        return _load(path)
    except OSError:
        raise _Wrong(f"there is no record {path}: make it with `clearseek claims record`") from None
    except ValueError:
        raise _Wrong(f"record {path} is not JSON: it was damaged") from None


@cache
def _load(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
