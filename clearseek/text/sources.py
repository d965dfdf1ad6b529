"""Where documents come from: a folder of pages, JSON lines, a Parquet file, a data set by name.

A source gives the same documents in the same order every time, and says by a hash what they are.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.text.documents import Document, TextDocument, document_from_row

_PAGE_SUFFIXES = (".md", ".txt")
_HASH_CHUNK_BYTES = 1 << 20


class Source(ABC):
    """Documents in a fixed order. Iterating reads them afresh; InputError names a place that is wrong."""

    name: str

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """sha256 (hex) over the content."""

    @abstractmethod
    def documents_by_group(self) -> Iterator[tuple[str, Document]]:
        """Every document with the group it belongs to, such as the language folder it lies in."""

    def __iter__(self) -> Iterator[Document]:
        """Every document."""
        return (document for _, document in self.documents_by_group())

    def split(self, every: int) -> tuple["Source", "Source"]:
        """(training, held out): every `every`-th document of each group is held out.

        A document whose content is held out under another name is left out of training too.
        """
        if every < 2:
            raise InputError(
                f"{self.name}: holding out every {every}th document leaves none to train on; use 2 or more"
            )
        held_out = HeldOutPart(self, every)
        return TrainingPart(self, held_out), held_out


class HeldOutPart(Source):
    """Every `every`-th document of each group."""

    def __init__(self, whole: Source, every: int) -> None:
        """A part of `whole`, read through it."""
        self.whole, self.every = whole, every
        self.name = f"{whole.name} (every {every}th held out)"

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the whole's fingerprint and which part this is."""
        return _hash_text(f"held out {self.every} {self.whole.fingerprint}")

    @cached_property
    def content_hashes(self) -> frozenset[str]:
        """Content hashes of the documents held out; InputError where there is none."""
        hashes = frozenset(document.content_hash for document in self)
        if not hashes:
            raise InputError(f"{self.whole.name}: too few documents to hold out every {self.every}th")
        return hashes

    def documents_by_group(self) -> Iterator[tuple[str, Document]]:
        """The documents held out, with their groups."""
        seen: defaultdict[str, int] = defaultdict(int)
        for group, document in self.whole.documents_by_group():
            seen[group] += 1
            if seen[group] % self.every == 0:
                yield group, document


class TrainingPart(Source):
    """What a held-out part leaves: no document with the content of one held out."""

    def __init__(self, whole: Source, held_out: HeldOutPart) -> None:
        """A part of `whole`, read through it."""
        self.whole, self.held_out = whole, held_out
        self.name = f"{whole.name} (without every {held_out.every}th)"

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the whole's fingerprint and which part this is."""
        return _hash_text(f"training {self.held_out.every} {self.whole.fingerprint}")

    def documents_by_group(self) -> Iterator[tuple[str, Document]]:
        """The documents to train on, with their groups."""
        held_out = self.held_out.content_hashes
        for group, document in self.whole.documents_by_group():
            if document.content_hash not in held_out:
                yield group, document


class FolderSource(Source):
    """The .txt and .md files under a folder by path, without blank ones. Groups are its sub-folders."""

    def __init__(self, folder: Path) -> None:
        """Raises InputError where there is no such folder."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
        self.folder = folder
        self.name = str(folder)

    @cached_property
    def paths(self) -> list[Path]:
        """The files, sorted by their path below the folder; InputError where there is none."""
        files = (
            path
            for path in self.folder.rglob("*")
            if path.suffix.lower() in _PAGE_SUFFIXES and path.is_file()
        )
        found = sorted(files, key=lambda path: path.relative_to(self.folder).as_posix())
        if not found:
            raise InputError(
                f"{self.folder}: holds no .txt or .md file (for data files, give the file itself)"
            )
        return found

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over every file's path below the folder and its bytes."""
        digest = hashlib.sha256()
        for path in self.paths:
            content = _read_bytes(path)
            digest.update(f"{path.relative_to(self.folder).as_posix()}\0{len(content)}\0".encode())
            digest.update(content)
        return digest.hexdigest()

    def documents_by_group(self) -> Iterator[tuple[str, Document]]:
        """The pages, each with the name of the sub-folder it lies in ("" for the folder itself)."""
        for path in self.paths:
            below = path.relative_to(self.folder)
            text = _decode(_read_bytes(path), path)
            if text.strip():
                yield below.parts[0] if len(below.parts) > 1 else "", TextDocument(text, str(path))


class JsonLinesSource(Source):
    """One JSON object a line, in any layout that `document_from_row` knows; blank lines are left out."""

    def __init__(self, path: Path, ignored_fields: tuple[str, ...] = ()) -> None:
        """Raises InputError where there is no such file."""
        _require_file(path)
        self.path, self.ignored_fields = path, ignored_fields
        self.name = str(path)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the file's bytes."""
        return hash_file(self.path)

    def documents_by_group(self) -> Iterator[tuple[str, Document]]:
        """The lines' documents, all in one group."""
        try:
            with self.path.open("rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield "", self._document(line, f"{self.path} line {number}")
        except OSError as error:
            raise InputError(f"{self.path}: can't be read ({error.strerror})") from error

    def _document(self, line: bytes, place: str) -> Document:
        try:
            row = json.loads(_decode(line, place))
        except json.JSONDecodeError as error:
            raise InputError(f"{place}: broken JSON at column {error.colno} ({error.msg})") from error
        return document_from_row(row, place, self.ignored_fields)


def open_source(
    location: str | Path, kind: str | None = None, ignored_fields: tuple[str, ...] = ()
) -> Source:
    """The source at `location`: a folder, a .jsonl or a .parquet file.

    `kind` is folder, jsonl, parquet or huggingface, else it is known by the path. Only `kind="huggingface"`
    takes `location` as the name of a data set (`org/name`, `org/name:config`) and reaches for the network.
    """
    from clearseek.text.columns import HuggingFaceSource, ParquetSource

    path = Path(location)
    chosen = kind or _kind_of(path)
    if chosen == "folder" and not ignored_fields:
        return FolderSource(path)
    if chosen == "jsonl":
        return JsonLinesSource(path, ignored_fields)
    if chosen == "parquet":
        return ParquetSource(path, ignored_fields)
    if chosen == "huggingface":
        return HuggingFaceSource(str(location), ignored_fields=ignored_fields)
    if chosen == "folder":
        raise InputError(f"{location}: a folder of pages has no fields to ignore")
    raise InputError(f"kind of source {chosen!r} is not known; choose folder, jsonl, parquet or huggingface")


def count_overlap(training: Source, held_out: Source) -> int:
    """How many documents of `training` have the content of one held out."""
    hashes = {document.content_hash for document in held_out}
    return sum(document.content_hash in hashes for document in training)


def hash_file(path: Path) -> str:
    """sha256 (hex) over a file's bytes; raises InputError where it can't be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as content:
            while chunk := content.read(_HASH_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error
    return digest.hexdigest()


def _kind_of(path: Path) -> str:
    if path.is_dir():
        return "folder"
    if path.suffix in (".jsonl", ".parquet"):
        return path.suffix[1:]
    if path.exists():
        raise InputError(
            f"{path}: not a folder, .jsonl or .parquet; for one page, give the folder it lies in"
        )
    raise InputError(f"{path}: no such file or folder (for a data set by name, say the kind: huggingface)")


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such file")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error


def _decode(content: bytes, place: Any) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8 text (byte {error.start}); convert it to UTF-8") from error


def _hash_text(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
