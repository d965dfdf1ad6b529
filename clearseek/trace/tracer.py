"""From an answer back to the training data: its longest spans there, and for each the documents and their steps.

What is found are matches. That a model's answer and a document agree doesn't say that the one came from the other.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearseek.config.errors import InputError
from clearseek.ledger.cost import led_to
from clearseek.ledger.record import load_run
from clearseek.trace.evaluation import evaluation_texts
from clearseek.trace.kept import document_sha256
from clearseek.trace.shelves import Shelf, open_shelves
from clearseek.trace.sources import run_readings
from clearseek.trace.spans import Span, find_spans
from clearseek.trace.words import words_of

LONGEST_TEXT_BYTES = 1 << 20
MIN_WORDS = 8
_AROUND_BYTES = 120  # of a document on either side of a span


@dataclass(frozen=True)
class FoundDocument:
    """A document that holds a span: its hash, where it came from, and by which steps it was read."""

    sha256: str
    place: str
    source: str
    licence: str
    teacher: dict[str, Any] | None
    seen: list[dict[str, Any]]
    occurrences: int
    before: str
    after: str


@dataclass(frozen=True)
class FoundSpan:
    """A span of the answer, by its bytes, and where it stands; `documents` are the first of `num_documents`."""

    text: str
    start: int
    end: int
    words: int
    occurrences: int
    num_documents: int
    documents: list[FoundDocument]
    evaluation: list[str]


@dataclass(frozen=True)
class Trace:
    """All spans that were found, rarest first; `spans` are the first of `num_spans`."""

    run: str
    min_words: int
    min_bytes: int
    num_words: int
    num_spans: int
    spans: list[FoundSpan]
    documents_searched: int
    bytes_searched: int
    inherited: list[dict[str, Any]]  # of a fork: stages that another run computed, and the head of its ledger

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)


class Tracer:
    """The opened shelves of one run, or with `stage` of all that led to that stage's model.

    With `sampled` also of answers that were only sampled. Opening builds indexes that aren't kept yet and says so
    through `note`.
    """

    def __init__(
        self,
        run_dir: Path,
        note: Callable[[str], None] = lambda _: None,
        stage: str | None = None,
        sampled: bool = False,
    ) -> None:
        readings = run_readings(run_dir)
        if stage is not None:
            readings = readings.only(led_to(load_run(run_dir), stage))
        self.run_dir, self.inherited = run_dir, readings.inherited
        self.shelves: Sequence[Shelf] = open_shelves(readings, note, sampled)
        if not self.shelves:
            raise InputError(
                f"{run_dir}: no stage of this run has documents on record; one made by an older clearseek must be "
                "made anew to be traced"
            )
        self.evaluation = {name: text.encode("utf-8") for name, text in evaluation_texts(readings).items()}

    def trace(
        self,
        text: str,
        min_words: int = MIN_WORDS,
        min_bytes: int = 1,
        num_spans: int = 10,
        num_documents: int = 5,
    ) -> Trace:
        """The rarest spans of a text with the first documents of each. InputError for an empty text or a huge one."""
        if not text.strip():
            raise InputError("there is no text to trace; give an answer, or - to read it from a pipe")
        words = words_of(text)
        if len(words.text) > LONGEST_TEXT_BYTES:
            raise InputError(
                f"the text has {len(words.text):,} bytes; at most {LONGEST_TEXT_BYTES:,} are traced at once: "
                "give the part in question"
            )
        spans = find_spans(words, [shelf.index.array for shelf in self.shelves], min_words, min_bytes)
        return Trace(
            run=str(self.run_dir),
            min_words=min_words,
            min_bytes=min_bytes,
            num_words=len(words.starts),
            num_spans=len(spans),
            spans=[self._found(words.text, span, num_documents) for span in spans[:num_spans]],
            documents_searched=sum(len(shelf.index) for shelf in self.shelves),
            bytes_searched=sum(len(shelf.index.array.text) for shelf in self.shelves),
            inherited=self.inherited,
        )

    def _found(self, answer: bytes, span: Span, most: int) -> FoundSpan:
        content = answer[span.start : span.end]
        holders = [
            np.unique(shelf.index.document_at(places), return_index=True, return_counts=True)
            for shelf, places in zip(self.shelves, span.places, strict=True)
        ]
        found = []
        for turn, number in _in_turn([len(documents) for documents, _, _ in holders], most):
            documents, first, counts = (column[turn] for column in holders[number])
            place = int(span.places[number][first])
            found.append(
                _found_document(self.shelves[number], int(documents), place, len(content), int(counts))
            )
        return FoundSpan(
            text=content.decode("utf-8"),
            start=span.start,
            end=span.end,
            words=span.num_words,
            occurrences=span.occurrences,
            num_documents=sum(len(documents) for documents, _, _ in holders),
            documents=found,
            evaluation=[name for name, texts in self.evaluation.items() if content in texts],
        )


def _in_turn(counts: Sequence[int], most: int) -> list[tuple[int, int]]:
    """(document, shelf) of the first of every shelf, then of the second of each, and so on."""
    turns = [(turn, shelf) for shelf, count in enumerate(counts) for turn in range(min(count, most))]
    return sorted(turns)[:most]


def _found_document(shelf: Shelf, document: int, place: int, length: int, count: int) -> FoundDocument:
    begin, end = (int(at) for at in shelf.index.starts[document : document + 2])
    raw = shelf.index.array.text
    before = bytes(raw[max(begin, place - _AROUND_BYTES) : place])
    after = bytes(raw[place + length : min(end - 1, place + length + _AROUND_BYTES)])
    return FoundDocument(
        sha256=document_sha256(shelf.index.text(document)),
        **shelf.about(document),
        seen=shelf.seen(document),
        occurrences=count,
        before=before.decode("utf-8", "ignore"),
        after=after.decode("utf-8", "ignore"),
    )
