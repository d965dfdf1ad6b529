"""A suffix array of one source's documents, built when it is first asked for and kept among the user's files.

Kept by the hash of the documents and never inside a run: a sealed run is not written to, two runs on the same
documents share one, and one that doesn't belong to its documents is not found. Files of an index:
    text       every document's bytes, each followed by the byte 255
    documents  where each begins, and the end: little-endian int64
    suffixes   where words begin, sorted by what follows: little-endian int32, int64 above 2 GiB
    words      a bit for every byte of text that ends a word
    index.json their hashes; written last
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearseek.config.errors import RunError
from clearseek.config.places import cache_directory
from clearseek.ledger.lines import file_sha256
from clearseek.trace.search import DOCUMENT_END, SuffixArray
from clearseek.trace.words import words_of

FORMAT = 1
_FILES = ("text", "documents", "suffixes", "words")
_LARGEST_INT32 = 2**31 - 1
_PART_CHARACTERS = 1 << 24  # words are found in parts of this size: a character takes 30 bytes meanwhile


@dataclass(frozen=True)
class Index:
    """An opened index; `starts` int64 [documents + 1] are where its documents begin in the text."""

    array: SuffixArray
    starts: np.ndarray

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.starts) - 1

    def document_at(self, places: np.ndarray) -> np.ndarray:
        """The document that each place of the text lies in."""
        return np.searchsorted(self.starts, places, "right") - 1

    def text(self, document: int) -> str:
        """A document's text."""
        begin, end = int(self.starts[document]), int(self.starts[document + 1]) - 1
        return bytes(self.array.text[begin:end]).decode("utf-8")


def index_directory(documents_sha256: str) -> Path:
    """Where the index of documents with this hash is kept."""
    return cache_directory() / "trace" / documents_sha256


def open_index(documents_sha256: str) -> Index | None:
    """The kept index of documents with this hash; None where there is none, or one that is not whole."""
    folder = index_directory(documents_sha256)
    try:
        about = json.loads((folder / "index.json").read_bytes())
        if about["format"] != FORMAT or about["documents_sha256"] != documents_sha256:
            return None
        if any(file_sha256(folder / name) != about["files"][name] for name in _FILES):
            return None
        return Index(
            SuffixArray(
                _mapped(folder / "text", np.uint8),
                _mapped(folder / "suffixes", np.dtype(about["suffixes"])),
                _mapped(folder / "words", np.uint8),
            ),
            np.fromfile(folder / "documents", "<i8"),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def build_index(documents_sha256: str, texts: Sequence[str]) -> Index:
    """Index documents and keep it. RunError where the disk refuses."""
    folder = index_directory(documents_sha256)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        try:
            _write(partial, documents_sha256, texts)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise RunError(
            f"{folder}: the index can't be kept ({error.strerror}); make room, or set XDG_CACHE_HOME"
        ) from error
    index = open_index(documents_sha256)
    if index is None:
        raise RunError(f"{folder}: the index just built can't be read back; is the disk failing?")
    return index


def suffix_array(texts: Sequence[str]) -> tuple[SuffixArray, np.ndarray]:
    """The sorted words of documents, and int64 [documents + 1] where each begins."""
    contents = [text.encode("utf-8") for text in texts]
    starts = np.concatenate([[0], np.cumsum([len(content) + 1 for content in contents])]).astype(np.int64)
    end = bytes([DOCUMENT_END])
    text = np.frombuffer(bytearray(end.join(contents) + end if contents else b""), np.uint8)
    begins, ends = np.zeros(len(text), bool), np.zeros(len(text), bool)
    for first, part in _parts(texts):
        words = words_of("\n".join(part))
        begins[starts[first] + words.starts] = True
        ends[starts[first] + words.ends - 1] = True
    suffixes = _sorted_suffixes(text)
    return SuffixArray(text, suffixes[begins[suffixes]], np.packbits(ends, bitorder="little")), starts


def _sorted_suffixes(text: np.ndarray) -> np.ndarray:
    from pydivsufsort import divsufsort

    return np.asarray(divsufsort(text))


def _parts(texts: Sequence[str]) -> Any:
    """Documents by and by, with the number of the first."""
    first, size = 0, 0
    for number, text in enumerate(texts):
        size += len(text) + 1
        if size >= _PART_CHARACTERS:
            yield first, texts[first : number + 1]
            first, size = number + 1, 0
    if first < len(texts):
        yield first, texts[first:]


def _write(folder: Path, documents_sha256: str, texts: Sequence[str]) -> None:
    array, starts = suffix_array(texts)
    kind = "<i4" if len(array.text) <= _LARGEST_INT32 else "<i8"
    arrays = (array.text, starts.astype("<i8"), array.suffixes.astype(kind), array.word_ends)
    hashes = {}
    for name, values in zip(_FILES, arrays, strict=True):
        values.tofile(folder / name)
        hashes[name] = hashlib.sha256(np.ascontiguousarray(values).data).hexdigest()
    about = {"format": FORMAT, "documents_sha256": documents_sha256, "suffixes": kind, "files": hashes}
    (folder / "index.json").write_text(json.dumps(about, indent=1), encoding="utf-8")


def _mapped(path: Path, kind: Any) -> np.ndarray:
    """A file as an array in place; an empty file can't be mapped."""
    if path.stat().st_size == 0:
        return np.empty(0, kind)
    return np.asarray(
        np.memmap(path, kind, "r")
    )  # as a plain array: every slice of the other kind costs its checks
