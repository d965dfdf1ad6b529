"""Shelves of what a run had before it and no step learnt from: the tokenizer's own texts, and answers put by."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clearseek.config.errors import RunError
from clearseek.ledger.lines import file_sha256
from clearseek.tasks.corpus import Example
from clearseek.text.documents import Document
from clearseek.text.sources import open_source
from clearseek.trace.index import Index
from clearseek.trace.kept import text_of
from clearseek.trace.sources import Record, RunReadings, StageReading, source_documents

TOKENIZER, SAMPLED = "tokenizer", "sampled"


@dataclass
class UnreadShelf:
    """Documents that no step read. `kind` says what they were for: the tokenizer, or none, being sampled only."""

    index: Index
    stage: StageReading
    kind: str
    source: str
    licence: str
    teacher: Record | None

    def about(self, document: int) -> Record:
        """Where a document came from, by whose leave it is used, and who wrote it."""
        return {
            "place": f"document {document + 1} of those that no step read",
            "source": self.source,
            "licence": self.licence,
            "teacher": self.teacher,
        }

    def seen(self, document: int) -> list[Record]:
        """By no step."""
        return [
            {
                "document": f"{self.stage.name}/unread/{document}",
                "stage": self.stage.name,
                "kind": self.kind,
                "steps": [],
                "learning_rates": [],
            }
        ]


@dataclass(frozen=True)
class Unread:
    """A source to look for such documents in; `name` is what its contents are known by."""

    stage: StageReading
    kind: str
    name: str
    source: str
    licence: str
    teacher: Record | None
    read: Callable[[], Sequence[Document | Example]]

    def shelf(
        self, trained: dict[str, Index], open_or_build: Callable[[str, Callable[[], list[str]]], Index]
    ) -> UnreadShelf:
        """Its documents that stand in none of `trained`, indexed."""
        name = hashlib.sha256(" ".join(["unread", self.name, *sorted(trained)]).encode()).hexdigest()

        def texts() -> list[str]:
            known = {index.text(i) for index in trained.values() for i in range(len(index))}
            return [text for document in self.read() if (text := text_of(document)) not in known]

        index = open_or_build(name, texts)
        return UnreadShelf(index, self.stage, self.kind, self.source, self.licence, self.teacher)


def unread_sources(readings: RunReadings, trained: dict[str, Index], sampled: bool) -> Iterator[Unread]:
    """Sources of tokenizers that are not `trained` on as they are; with `sampled` also what models' answers left."""
    for stage in readings.others:
        if stage.kind == TOKENIZER and stage.data:
            yield from _of_tokenizer(readings, stage, trained)
    for stage in (*readings.stages, *readings.others) if sampled else ():
        if stage.teacher is not None and stage.teacher.get("rows"):
            yield _of_samples(readings, stage)


def _of_tokenizer(readings: RunReadings, stage: StageReading, trained: dict[str, Index]) -> Iterator[Unread]:
    tables = [table | {"line": stage.data[0]["line"]} for table in stage.data[0].get("sources") or []]
    single = replace(stage, data=tables)
    for number, table in enumerate(tables):
        name, origin = str(table["documents_sha256"]), stage.origins.get(number, {})
        if name not in trained:
            yield Unread(
                stage,
                TOKENIZER,
                name,
                str(origin.get("name") or stage.name),
                str(origin.get("licence") or "not stated"),
                stage.stated_teacher(number),
                lambda number=number: source_documents(readings, single, number),  # type: ignore[misc]
            )


def _of_samples(readings: RunReadings, stage: StageReading) -> Unread:
    told = stage.teacher or {}
    path = readings.run_dir / str(told["examples"])
    return Unread(
        stage,
        SAMPLED,
        _sha256(path),
        str(told["examples"]),
        str(told.get("licence") or "not stated"),
        readings.teacher_of(stage.name),
        lambda: _examples(path),
    )


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise RunError(f"{path}: can't be read ({error.strerror}); the run was half copied") from error


def _examples(path: Path) -> list[Document]:
    return list(open_source(path))
