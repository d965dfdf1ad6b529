"""Takes a document out of a run: trains again without it, in a run of its own whose ledger is the certificate.

Without means here: it is dropped before anything is encoded, by its hash in the `filters` of every source that gave
it. So its words are nowhere in the new run, and what follows it is packed anew. The stages before the first that read
it are taken over as they are; all later ones run again.
"""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.load import resolved
from clearseek.config.progress import Progress
from clearseek.config.toml import to_toml
from clearseek.ledger.log import read
from clearseek.recipe.recorded import RecordedRun, read_run
from clearseek.recipe.run import run_recipe, without_none
from clearseek.trace.kept import document_sha256, text_of
from clearseek.trace.sources import RunReadings, StageReading, run_readings, source_documents

_SHORTEST_HASH = 8


@dataclass(frozen=True)
class Removal:
    """A run without a document: where it was read, and every stage's model before and after, by hash."""

    document: str
    places: list[str]
    run_dir: Path
    line: int  # of the new ledger: the first `filter` record that dropped it
    models: dict[str, tuple[str, str]]


def remove_document(run_dir: Path, told: str, progress: Progress | None = None) -> Removal:
    """Train a finished run again without a document, beside it. InputError where no stage has read it."""
    run = read_run(run_dir)
    document, places = find_document(run_dir, told)
    values = without_none(resolved(run.recipe))
    for stage, index in places:
        table = values["stages"][stage]
        source = table["data" if table.get("data") else "sft_data"][index]
        filters = source.setdefault("filters", {})
        filters["removed"] = [*filters.get("removed", []), document]
    session = next(iter(run.stages.values())).session
    lane = session.get("lane")
    with tempfile.TemporaryDirectory(prefix="clearseek-") as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text(to_toml(values), encoding="utf-8")
        result = run_recipe(
            str(path), out=run_dir, fork=True, device=str(session["device"]), progress=progress, lane=lane
        )
    return _certified(run, document, places, result.run_dir)


def find_document(run_dir: Path, told: str) -> tuple[str, list[tuple[str, int]]]:
    """The whole hash of a document, of which 8 digits do, and every source that gave it as (stage, number)."""
    if len(told) < _SHORTEST_HASH or set(told) - set("0123456789abcdef"):
        raise InputError(f"{told!r} is no document's hash; give at least its first {_SHORTEST_HASH} digits")
    readings, found = run_readings(run_dir), dict[str, list[tuple[str, int]]]()
    for stage in (*map(_of_tokenizer, readings.others), *readings.stages):
        for index in range(len(stage.data)):
            for name in _named(readings, stage, index, told):
                found.setdefault(name, []).append((stage.name, index))
    if len(found) != 1:
        what = "several documents" if found else "no document"
        raise InputError(f"{run_dir}: {what} that a stage has read has a hash that begins with {told}")
    return next(iter(found.items()))


def _named(readings: RunReadings, stage: StageReading, index: int, told: str) -> set[str]:
    hashes = {document_sha256(text_of(document)) for document in source_documents(readings, stage, index)}
    return {name for name in hashes if name.startswith(told)}


def _of_tokenizer(stage: StageReading) -> StageReading:
    """A tokenizer stage, whose one `data` record tells of all its sources, as other stages are read."""
    tables: list[dict[str, Any]] = [
        table | {"line": record["line"]} for record in stage.data for table in record.get("sources", [])
    ]
    return replace(stage, data=tables)


def _certified(run: RecordedRun, document: str, places: list[tuple[str, int]], new: Path) -> Removal:
    records = read(new / "ledger.jsonl")
    line = next(
        record["line"]
        for record in records
        if record["kind"] == "filter" and document in record["rules"].get("removed", ())
    )
    after = {record["stage"]: record for record in records if record["kind"] == "stage_finished"}
    models = {
        name: (_model_hash(stage.finished or {}), _model_hash(after.get(name, {})))
        for name, stage in run.stages.items()
    }
    told = [f"{stage}/{index}" for stage, index in places]
    return Removal(document, told, new, line, {name: pair for name, pair in models.items() if all(pair)})


def _model_hash(finished: dict[str, Any]) -> str:
    files = [file for file in finished.get("outputs", []) if str(file["path"]).startswith("checkpoints/")]
    return str(files[0]["sha256"]) if files else ""
