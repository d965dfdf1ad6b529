"""A run's sources read again: every document that a stage trained on, held to the hash in the ledger."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from clearseek.config.errors import InputError, RunError
from clearseek.config.recipe import DataSource
from clearseek.ledger.log import read
from clearseek.ledger.record import inherited_of
from clearseek.tasks.corpus import Example
from clearseek.text.documents import Document
from clearseek.text.sources import open_source
from clearseek.trace.kept import documents_sha256, generate_examples, read_shard, shard_path, text_of

Record = dict[str, Any]


@dataclass
class StageReading:
    """What the ledger says of a stage: its table of the recipe, its records by kind, `origins` by source."""

    name: str
    kind: str
    config: Record
    data: list[Record] = field(default_factory=list)
    mix: Record | None = None
    steps: list[Record] = field(default_factory=list)
    origins: dict[int, Record] = field(default_factory=dict)
    teacher: Record | None = None

    @cached_property
    def learning_rates(self) -> dict[int, Any]:
        """The learning rate of every step."""
        return {int(record["step"]): record.get("learning_rate") for record in self.steps}

    def stated_teacher(self, source: int) -> Record | None:
        """The model from elsewhere that the recipe says wrote a source's rows, as `teacher_of` tells one of the run."""
        teacher = self.origins.get(source, {}).get("teacher") or {}
        return {"stage": None, "model": teacher["name"], "sha256": None} if teacher.get("name") else None

    @property
    def sources(self) -> list[DataSource]:
        """The tables of its sources, in the order of its `data` records."""
        tables = self.config.get("data") or self.config.get("sft_data") or []
        try:
            return [DataSource.model_validate(table) for table in tables]
        except ValidationError as error:
            raise RunError(
                f"stage {self.name}: its sources are of a newer clearseek ({error.errors()[0]['msg']})"
            ) from None


@dataclass(frozen=True)
class RunReadings:
    """Every stage of a run, and the seed that its orders come from; `stages` are those that read documents."""

    run_dir: Path
    seed: int
    stages: list[StageReading]
    others: list[StageReading]
    inherited: list[Record] = field(default_factory=list)

    def stage(self, name: str) -> StageReading:
        """The stage of that name; InputError lists those that read documents."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        known = ", ".join(stage.name for stage in self.stages) or "none"
        raise InputError(f"{self.run_dir}: no stage {name!r} read documents; those that did: {known}")

    def only(self, names: Collection[str]) -> "RunReadings":
        """Those of some stages."""
        stages, others = ([one for one in these if one.name in names] for these in (self.stages, self.others))
        return replace(self, stages=stages, others=others)

    def teacher_of(self, stage: str | None) -> Record | None:
        """The stage whose model wrote another's examples, with what the ledger says of it; None for people's words."""
        for reading in (*self.stages, *self.others):
            if reading.name == stage and reading.teacher is not None:
                model = reading.teacher.get("model") or {}
                name = model.get("stage") or model.get("path")  # of an earlier stage, or from outside the run
                return {"stage": reading.name, "model": name, "sha256": model.get("sha256")}
        return None


def run_readings(run_dir: Path) -> RunReadings:
    """The stages of a run that read documents. InputError where there is no run."""
    if not (run_dir / "ledger.jsonl").is_file():
        raise InputError(f"{run_dir} has no ledger.jsonl: give the directory of a run, such as runs/r1-mini")
    stages, seed, inherited = dict[str, StageReading](), 0, list[Record]()
    for record in read(run_dir / "ledger.jsonl"):
        name = str(record.get("stage"))
        if record["kind"] == "run":
            seed = int(record["seed"])
        elif record["kind"] == "fork" and record["stages"]:
            inherited.append(inherited_of(record))
        elif record["kind"] == "stage_started":
            stages[name] = StageReading(name, str(record.get("kind_of_stage")), record.get("config") or {})
        elif name in stages:
            _file(stages[name], record)
    read_documents = [stage for stage in stages.values() if stage.mix]
    others = [stage for stage in stages.values() if not stage.mix]
    return RunReadings(run_dir, seed, read_documents, others, inherited)


def _file(stage: StageReading, record: Record) -> None:
    kind = record["kind"]
    if kind == "data":
        stage.data.append(record)
    elif kind == "mix":
        stage.mix = record
    elif kind == "teacher":
        stage.teacher = record
    elif kind == "step":
        stage.steps.append(record)
    elif kind == "source" and isinstance(record.get("data"), int):
        stage.origins[record["data"]] = record


def source_documents(readings: RunReadings, stage: StageReading, index: int) -> list[Document | Example]:
    """The documents of one source in the order they were read. RunError where they are not those trained on."""
    record, source = stage.data[index], stage.sources[index]
    found = _read_again(readings, stage, source, index, str(record.get("kept")))
    if documents_sha256(map(text_of, found)) != record.get("documents_sha256"):
        raise RunError(
            f"{readings.run_dir}: what {_origin(source)} gives is not what stage {stage.name} trained on (the hash "
            f"in line {record['line']} of the ledger is another): it was changed, or the run was half copied"
        )
    return found


def _read_again(
    readings: RunReadings, stage: StageReading, source: DataSource, index: int, kept: str
) -> list[Document | Example]:
    if kept == "generated":
        return list(generate_examples(source, readings.seed, stage.name, index))
    if kept == "shard":
        return list(read_shard(shard_path(readings.run_dir, stage.name, index)))
    if kept in ("stage", "reference"):
        return list(_read_where_it_was(readings.run_dir, source))
    raise RunError(
        f"{readings.run_dir}: stage {stage.name} has no documents on record: an older clearseek made this run; "
        "make it anew to trace it"
    )


def _read_where_it_was(run_dir: Path, source: DataSource) -> Sequence[Document]:
    ignored = tuple(source.ignored_fields)
    if source.stage is not None:
        opened = open_source(run_dir / "data" / f"{source.stage}.jsonl")
    elif source.dataset is not None:
        opened = open_source(source.dataset, kind="huggingface", ignored_fields=ignored)
    else:
        opened = open_source(str(source.path), ignored_fields=ignored)
    if source.hold_out_every:
        opened, _ = opened.split(source.hold_out_every)
    return list(opened)[: source.count or None]


def _origin(source: DataSource) -> str:
    if source.problems is not None:
        return f"the generator of problems {json.dumps(source.problems.model_dump(exclude_none=True))}"
    return f"stage {source.stage}" if source.stage else source.path or str(source.dataset)
