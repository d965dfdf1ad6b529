"""Reading in a run's documents: some of a source's, and those that hold a text."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.data.filters import mask_texts
from clearseek.ledger.data_page import data_page
from clearseek.ledger.record import RunRecord
from clearseek.ledger.report import replace_file
from clearseek.ledger.sources import SourceRecord
from clearseek.tasks.corpus import Example
from clearseek.text.documents import Document
from clearseek.trace.kept import text_of
from clearseek.trace.sources import RunReadings, StageReading, source_documents

_ON_PAGE = 20  # documents of each source
_AROUND = 80  # characters on either side of what was searched for


@dataclass(frozen=True)
class Shown:
    """One document, or the part of it that was searched for; `row` is its number in its source, from 0."""

    row: int
    place: str
    text: str


def documents_of(record: RunRecord, source: SourceRecord) -> list[Document | Example]:
    """The documents of a source, read again and held to the ledger's hash."""
    stage = source.stage
    data = stage.data
    if stage.kind == "tokenizer":  # one record for all of its sources, with a table of each
        data = [table | {"line": data[0]["line"]} for table in data[0]["sources"]]
    reading = StageReading(stage.name, stage.kind, stage.config, data)
    readings = RunReadings(record.directory, int(record.run["seed"]), [reading], [])
    return source_documents(readings, reading, source.source["data"])


def spread(documents: Sequence[Document | Example], count: int, masked: bool = False) -> list[Shown]:
    """`count` documents, evenly apart from the first on; personal data masked where they are to be passed on."""
    rows = [number * len(documents) // count for number in range(min(count, len(documents)))] if count else []
    rows = rows if count < len(documents) else list(range(len(documents)))
    texts = [text_of(documents[row]) for row in rows]
    texts = mask_texts(texts)[0] if masked else texts
    return [Shown(row, _place(documents[row]), text) for row, text in zip(rows, texts, strict=True)]


def matches(documents: Sequence[Document | Example], wanted: str, most: int) -> tuple[int, list[Shown]]:
    """How many documents hold a text, whatever the case, and the first `most` with what stands around it."""
    if not wanted.strip():
        raise InputError("--grep needs a text to look for")
    low, count, shown = wanted.lower(), 0, list[Shown]()
    for row, document in enumerate(documents):
        text = text_of(document)
        at = text.lower().find(low)
        if at >= 0:
            count += 1
            if len(shown) < most:
                part = text[max(at - _AROUND, 0) : at + len(wanted) + _AROUND]
                shown.append(Shown(row, _place(document), " ".join(part.split())))
    return count, shown


def write_data_page(
    record: RunRecord, chosen: Sequence[SourceRecord], path: Path, language: str = "en"
) -> None:
    """Write the page of some sources in en, ko or zh, with documents of each. RunError where it can't be written."""
    documents = {}
    for each in chosen:
        if each.has_documents:
            found = spread(documents_of(record, each), _ON_PAGE, masked=True)
            documents[each.id] = [asdict(one) for one in found]
    page = data_page(record, chosen, documents, language)
    replace_file(path, page.encode(errors="xmlcharrefreplace"))


def _place(document: Any) -> str:
    return str(getattr(document, "place", ""))
