"""A run's data as its records tell it: sources with their rights and contents, what filters dropped, who wrote what."""

import json
import math
from dataclasses import dataclass
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.lines import file_sha256, number, plain
from clearseek.ledger.record import Record, RunRecord, StageRecord, table, table_list

NOT_STATED = "not stated"


@dataclass(frozen=True)
class SourceRecord:
    """One source of one stage: its `source` record, and those of its filters and of how the run keeps it."""

    stage: StageRecord
    source: Record
    filter: Record | None
    kept: str

    @property
    def id(self) -> str:
        """STAGE/NUMBER, or STAGE/problems for what a stage asks its model."""
        return f"{self.stage.name}/{self.source.get('data', 'problems')}"

    @property
    def licence(self) -> str:
        """The licence by its SPDX id, or "not stated"."""
        return str(self.source.get("licence") or NOT_STATED)

    @property
    def has_documents(self) -> bool:
        """Whether its documents can be read again."""
        return "data" in self.source


def sources_of(record: RunRecord) -> list[SourceRecord]:
    """Every source in the order of the run. InputError where a run has none on record, with the reason."""
    found = [_source(stage, source) for stage in record.stages for source in stage.sources]
    if found:
        return found
    if any(stage.data for stage in record.stages):
        raise InputError(
            f"{record.directory}: an older clearseek made this run, which recorded no sources; "
            "run its recipe anew to have them on record"
        )
    raise InputError(f"{record.directory}: no stage of this run has read data yet")


def _source(stage: StageRecord, source: Record) -> SourceRecord:
    number = source.get("data")
    own = [each for each in stage.filters if number is not None and each.get("data") == number]
    return SourceRecord(stage, source, own[-1] if own else None, _kept(stage, number))


def _kept(stage: StageRecord, number: Any) -> str:
    """How the run keeps a source's documents; a tokenizer's `data` record has a table for each of them."""
    tables = (
        table_list(stage.data[0].get("sources")) if stage.data and stage.kind == "tokenizer" else stage.data
    )
    is_there = isinstance(number, int) and number < len(tables)
    return str(tables[number].get("kept", "")) if is_there else ""


def chosen_sources(found: list[SourceRecord], name: str | None) -> list[SourceRecord]:
    """Those whose id, stage or name it is; all without a name. InputError lists the ids."""
    if name is None:
        return found
    chosen = [each for each in found if name in (each.id, each.stage.name, each.source.get("name"))]
    if not chosen:
        raise InputError(f"no source {name!r}; this run's are: {', '.join(each.id for each in found)}")
    return chosen


def dropped_samples(record: RunRecord, source: SourceRecord) -> list[Record]:
    """The documents kept of what a source's filters dropped. RunError where the file is lost or changed."""
    rows: list[Record] = []
    for output in table_list((source.filter or {}).get("outputs")):
        path = record.directory / str(output.get("path"))
        line = (source.filter or {}).get("line")
        try:
            is_right = file_sha256(path) == output.get("sha256")
            content = path.read_text(encoding="utf-8") if is_right else ""
        except OSError as error:
            raise RunError(
                f"{path}, named in line {line} of the ledger, cannot be read ({error.strerror}): lost, or half copied"
            ) from None
        if not is_right:
            raise RunError(f"{path} is not the file that line {line} of the ledger names: it was changed")
        rows += [json.loads(each) for each in content.splitlines()]
    return rows


def data_report(record: RunRecord, chosen: list[SourceRecord]) -> dict[str, Any]:
    """The chosen sources as one JSON object, with what filters dropped of them and with the run's teachers."""
    report = {
        "run": record.name,
        "state": record.state,
        "inherited": record.inherited,
        "sources": [
            {"id": each.id, "stage": each.stage.name, "stage_kind": each.stage.kind, "kept": each.kept}
            | _facts(each.source)
            | {
                "filter": _facts(each.filter) if each.filter else None,
                "dropped_samples": dropped_samples(record, each),
            }
            for each in chosen
        ],
        "teachers": [
            {"stage": stage.name} | _facts(teacher) for stage in record.stages for teacher in stage.teachers
        ],
    }
    return {key: plain(value, key) for key, value in report.items()}


def _facts(record: Record) -> Record:
    """A record without what only the chain needs."""
    return {
        key: value for key, value in record.items() if key not in ("line", "prev", "kind", "stage", "outputs")
    }


def count(value: Any) -> int:
    """A number of a record as a whole one; 0 for anything else, so that a damaged record can still be looked at."""
    found = number(value)
    return int(found) if found is not None and math.isfinite(found) else 0


def language_shares(source: Record) -> list[tuple[str, float]]:
    """(language, share of the documents), the largest first."""
    counts = [
        (name, count(table(pair).get("documents"))) for name, pair in table(source.get("languages")).items()
    ]
    whole = sum(documents for _, documents in counts)
    shares = ((name, documents / whole) for name, documents in counts if documents)
    return sorted(shares, key=lambda pair: -pair[1])


def worst_overlap(source: Record) -> tuple[int, int, int]:
    """Items of evaluations in a source: (whole, sharing 13 words in a row, looked for), over the sets together."""
    tables = [table(each) for each in table(source.get("contamination")).values()]
    whole, overlapping, items = (
        sum(count(each.get(key)) for each in tables) for key in ("whole", "overlapping", "items")
    )
    return whole, overlapping, items
