"""Everything that the papers of a run say, read from the run once it verifies: nothing here is typed or guessed."""

import json
import tomllib
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.cost import cost_of
from clearseek.ledger.lines import number
from clearseek.ledger.log import read
from clearseek.ledger.note import key_of_run
from clearseek.ledger.record import Record, RunRecord, StageRecord, load_run, table, table_list
from clearseek.ledger.tariff import Tariff
from clearseek.ledger.verifier import Verified, Wrong, named_files, verify_run
from clearseek.trace.excerpt import check_whole

CODE_LICENCE = "Apache-2.0"  # of clearseek itself


@dataclass(frozen=True)
class Publisher:
    """What is stated of the publication; None is not stated."""

    weights: str | None = None
    documents: str | None = None
    provider: str | None = None
    contact: str | None = None


@dataclass(frozen=True)
class Source:
    """One data set that a stage read, as the ledger tells it; None is what nobody stated or counted."""

    stage: str
    index: int | None  # of the stage's sources; None for problems that a stage asked its model
    name: str
    what: str  # generated, written (by a stage's model), asked, files or dataset
    by_program: bool  # problems that a program makes, rather than anybody's text or a model's
    licence: str | None
    origin: str | None
    collected: str | None
    opt_out: str | None
    rows: int | None
    bytes: int | None
    tokens: int | None
    languages: dict[str, Any]
    personal_data: dict[str, int] | None
    duplicates: dict[str, int] | None
    contamination: dict[str, Any] | None
    teacher: str | None  # the stage whose model wrote it
    written_by: str | None  # the model from elsewhere that did, by name
    kept: str | None
    documents_sha256: str | None
    filters: tuple[Record, ...] = ()

    @property
    def title(self) -> str:
        """A name for files and tables, the only one of its kind in a run."""
        return self.stage if self.index is None else f"{self.stage}-{self.index}"


@dataclass(frozen=True)
class RunFacts:
    """A verified run and what was stated about it. `day` is that of its last session."""

    run: Path
    record: RunRecord
    verified: Verified
    key: str
    recipe: Record
    publisher: Publisher
    cost: Record
    sources: tuple[Source, ...]
    sessions: tuple[Record, ...]  # what each of them began with: code, versions, device
    hashes: dict[str, str]  # of every file that the ledger names, by its path in the run
    day: str

    @property
    def name(self) -> str:
        """The model's name."""
        return self.record.name

    @property
    def result(self) -> StageRecord:
        """The stage whose model is published."""
        found = self.record.result
        assert found is not None
        return found

    @property
    def model_dir(self) -> str:
        """Where that model lies, in the run."""
        return f"checkpoints/{self.result.name}"

    @cached_property
    def config(self) -> Record:
        """The model's config.json."""
        return dict(json.loads((self.run / self.model_dir / "config.json").read_text(encoding="utf-8")))

    @property
    def parameters(self) -> Record:
        """Total and active parameters."""
        return table(self.result.started.get("parameters"))

    @property
    def languages(self) -> list[str]:
        """Languages that the model was examined in, else those of its data."""
        examined = table((self.result.eval or {}).get("by_language"))
        found = examined or {name: 1 for source in self.sources for name, n in source.languages.items() if n}
        return sorted(name for name in found if name in ("en", "ko", "zh"))

    def bases(self, stage: StageRecord | None) -> list[Record]:
        """Models and adapters from elsewhere that a stage's model was made from, each with `name` and `sha256`."""
        found: dict[str, Record] = {}
        for one in self.record.lineage(stage) if stage else ():
            parents = table_list(one.started.get("parents"))
            if one.config.get("start") in table(self.recipe.get("models")):
                parents = parents[1:]  # the first is the tokenizer of a model of random weights
            for parent in parents:
                if not parent.get("stage"):
                    found[str(parent.get("sha256"))] = {
                        "name": str(parent.get("path")),
                        "sha256": parent["sha256"],
                    }
        return list(found.values())

    @property
    def final_eval(self) -> StageRecord:
        """The last examination of the published model: of a stage that does nothing else, or its own."""
        for stage in reversed(self.record.stages):
            parents = [parent.get("stage") for parent in table_list(stage.started.get("parents"))]
            if stage.kind == "eval" and stage.eval and self.result.name in parents:
                return stage
        return self.result


def read_facts(
    run: Path, stated: Publisher | None = None, tariff: Tariff | None = None, key: str | None = None
) -> RunFacts:
    """Verify a run and read what its papers need.

    Raises InputError for what is no finished run with an evaluated model, RunError where it doesn't verify.
    """
    record = load_run(run)
    check_whole(run)
    if record.state != "finished":
        raise InputError(
            f"{run} is {record.state}: papers are for finished runs; let `clearseek run` finish it"
        )
    try:
        verified = verify_run(run, key)
    except Wrong as error:
        raise RunError(f"{run}: {error}") from None
    if record.result is None:
        raise InputError(f"{run} has no evaluated model that papers could be about")
    recipe = tomllib.loads((run / "recipe.toml").read_text(encoding="utf-8"))
    records = read(run / "ledger.jsonl")
    return RunFacts(
        run=run,
        record=record,
        verified=verified,
        key=key or key_of_run(run),
        recipe=recipe,
        publisher=_publisher(recipe, stated or Publisher()),
        cost=cost_of(run, tariff, key),
        sources=tuple(_sources(records)),
        sessions=tuple(one for one in records if one["kind"] == "run"),
        hashes=_hashes(records),
        day=_day(record),
    )


def _publisher(recipe: Record, stated: Publisher) -> Publisher:
    """What is stated now, over what the recipe states."""
    told = {name: value for name, value in vars(stated).items() if value is not None}
    known = table(recipe.get("release"))
    return replace(Publisher(**{name: known.get(name) for name in vars(stated)}), **told)


def _day(record: RunRecord) -> str:
    times = [time for line in record.timings if (time := number(line.get("time"))) is not None]
    return datetime.fromtimestamp(max(times, default=0.0), UTC).date().isoformat()


def _hashes(records: list[Record]) -> dict[str, str]:
    files = [file for record in records for file in named_files(record)]
    return {str(file["path"]): str(file["sha256"]) for file in files}


def _sources(records: list[Record]) -> list[Source]:
    """By `source` records; of an older run, which has none, by what the stages' tables say."""
    found, stages = [], {str(r.get("stage")): r for r in records if r["kind"] == "stage_started"}
    told = {(r.get("stage"), r.get("data")): r for r in records if r["kind"] == "source"}
    filters = [r for r in records if r["kind"] == "filter"]
    for name, started in stages.items():
        config = table(started.get("config"))
        tables = table_list(config.get("data")) or table_list(config.get("sft_data"))
        data = [r for r in records if r["kind"] == "data" and r.get("stage") == name]
        for index, stated in enumerate(tables):
            here = [r for r in filters if (r.get("stage"), r.get("data")) == (name, index)]
            found.append(_source(name, index, stated, told.get((name, index), {}), _kept(data, index), here))
        if config.get("problems"):
            found.append(
                _source(name, None, {"problems": config["problems"]}, told.get((name, None), {}), {}, [])
            )
    return found


def _kept(data: list[Record], index: int) -> Record:
    """What a stage recorded of its `index`-th source; a tokenizer has one record for all of them."""
    if len(data) == 1 and data[0].get("sources"):
        kept = table_list(data[0]["sources"])
        return kept[index] if index < len(kept) else {}
    return data[index] if index < len(data) else {}


def _source(
    stage: str, index: int | None, stated: Record, told: Record, data: Record, filters: list[Record]
) -> Source:
    what = "asked" if index is None else "generated" if stated.get("problems") else "files"
    what = "written" if stated.get("stage") else "dataset" if stated.get("dataset") else what
    rows, tokens = told.get("rows", data.get("documents")), data.get("tokens")
    return Source(
        stage=stage,
        index=index,
        name=str(told.get("name") or data.get("source") or stated.get("stage") or "problems"),
        what=str(told.get("what") or what),
        by_program=bool(stated.get("problems")) and not table(stated.get("problems")).get("path"),
        licence=told.get("licence"),
        origin=told.get("origin"),
        collected=told.get("collected"),
        opt_out=told.get("opt_out"),
        rows=None if rows is None else int(rows),
        bytes=told.get("bytes"),
        tokens=None if tokens is None else int(tokens),
        languages=_languages(told.get("languages") or told.get("languages_asked")),
        personal_data=told.get("personal_data"),
        duplicates=told.get("duplicates"),
        contamination=told.get("contamination"),
        teacher=table(told.get("teacher")).get("stage") or stated.get("stage"),
        written_by=table(told.get("teacher")).get("name"),
        kept=data.get("kept"),
        documents_sha256=data.get("documents_sha256"),
        filters=tuple(filters),
    )


def _languages(value: Any) -> dict[str, Any]:
    """Counts by language; languages that were only asked for count as told."""
    return {str(name): True for name in value} if isinstance(value, list) else table(value)
