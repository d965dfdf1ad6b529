"""A source's documents as the run keeps them, so that they can be read again as long as the run is there.

`kept` in a `data` record says how:
    shard      `data/STAGE/INDEX.jsonl` in the run: a document a line, in the order they were read, with its hash and
               where it came from; the fields are those of any data file (`text`, or `prompt`, `thought`, `answer`);
               beside it INDEX.held_out.jsonl with those that were held out, if any
    stage      `data/STAGE.jsonl`, which an earlier stage of the run left
    generated  nothing: the recipe's table and the seed make the same documents again
    reference  nothing: too large to copy, so they are read again where they came from
Whichever it is, `documents_sha256` holds what is read again to what was trained on.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clearseek.config.errors import RunError
from clearseek.config.recipe import DataSource
from clearseek.ledger.lines import file_sha256
from clearseek.tasks.corpus import Example, documents
from clearseek.text.documents import Conversation, Document, TextDocument, document_from_row

LARGEST_SHARD_BYTES = 256 << 20  # of text in one source; more is kept by reference
ADDED_FIELDS = ("sha256", "place")  # of a shard's line, besides those of a data file


def shard_path(run_dir: Path, stage: str, index: int) -> Path:
    """Where a stage keeps what the `index`-th of its sources gave."""
    return run_dir / "data" / stage / f"{index}.jsonl"


def held_out_path(shard: Path) -> Path:
    """Where what was held out of a shard's source lies: it was not trained on, and bits per byte are told on it."""
    return shard.with_name(f"{shard.stem}.held_out.jsonl")


def text_of(document: Document | Example) -> str:
    """All words of a document: its messages, its thought and its answer, each on lines of its own."""
    if isinstance(document, TextDocument):
        return document.text
    if isinstance(document, Conversation):
        history = (message["content"] for message in document.history)
        return "\n".join([*history, document.thought, document.answer])
    return "\n".join(document)


def document_sha256(text: str) -> str:
    """The name of a document wherever it stands: sha256 (hex) over `text_of` it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def documents_sha256(texts: Iterable[str]) -> str:
    """sha256 (hex) over every text in order, each with its length in bytes in front."""
    digest = hashlib.sha256()
    for text in texts:
        content = text.encode("utf-8", "surrogatepass")
        digest.update(b"%d\n" % len(content))
        digest.update(content)
    return digest.hexdigest()


def generate_examples(source: DataSource, seed: int, stage: str, index: int) -> list[Example]:
    """The examples that a source of generated problems gives, the same every time."""
    problems = source.problems
    assert problems is not None
    styles = {str(style): share for style, share in source.styles.items()}
    return list(
        documents(
            problems.tasks,
            problems.languages,
            problems.levels,
            source.count,
            seed,
            styles,
            f"{stage}/{index}",
        )
    )


def is_regenerated(source: DataSource) -> bool:
    """Whether a source's documents are generated again instead of kept: what filters leave of them is kept."""
    return source.problems is not None and source.filters is None


def write_shard(path: Path, chosen: Sequence[Document], source_name: str) -> str:
    """Write documents beside and rename; returns the file's sha256. RunError where the disk refuses."""
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            for document in chosen:
                file.write(json.dumps(_row(document, source_name), ensure_ascii=False) + "\n")
        partial.replace(path)
    except OSError as error:
        raise RunError(
            f"{path} can't be written ({error.strerror or error}); make room and run the same command again"
        ) from error
    return file_sha256(path)


def read_shard(path: Path) -> Iterator[Document]:
    """A shard's documents in order. RunError names a line that is none."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise RunError(f"{path}: can't be read ({error.strerror}); the run was half copied") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
                yield document_from_row(row, str(row["place"]), ADDED_FIELDS)
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path} line {number} is no document of a run ({error})") from None


def _row(document: Document, source_name: str) -> Mapping[str, Any]:
    place = document.place.removeprefix(source_name).lstrip("/ ") or document.place
    about = {"sha256": document_sha256(text_of(document)), "place": place}
    if isinstance(document, TextDocument):
        return about | {"text": document.text}
    history: list[Mapping[str, str]] = list(document.history)
    return about | {"prompt": history, "thought": document.thought, "answer": document.answer}
