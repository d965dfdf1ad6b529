"""A run directory read into memory: its stages with their steps, evaluations and clock, and how it stands.

The report, the page and the doctor all read a run through this.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.append import is_being_written
from clearseek.ledger.lines import number, tolerant_records
from clearseek.ledger.log import Head, check_format, verify
from clearseek.ledger.timings import read_timings

Record = dict[str, Any]


@dataclass
class StageRecord:
    """What is written about one stage; `clock` holds its lines of timings.jsonl."""

    name: str
    kind: str
    started: Record
    steps: list[Record] = field(default_factory=list)
    evals: list[Record] = field(default_factory=list)
    data: list[Record] = field(default_factory=list)
    sources: list[Record] = field(default_factory=list)
    filters: list[Record] = field(default_factory=list)
    teachers: list[Record] = field(default_factory=list)
    checkpoints: list[Record] = field(default_factory=list)
    finished: Record | None = None
    clock: list[Record] = field(default_factory=list)

    @property
    def config(self) -> Record:
        """The stage's resolved table of the recipe."""
        return table(self.started.get("config"))

    @property
    def eval(self) -> Record | None:
        """The last evaluation of this stage."""
        return self.evals[-1] if self.evals else None

    @property
    def tokens(self) -> int:
        """Tokens the stage trained on or sampled; of an unfinished stage, those of its steps so far."""
        stated = number((self.finished or {}).get("tokens"))
        return int(stated if stated is not None else total(self.steps, "tokens"))

    @property
    def flops(self) -> float:
        """Floating-point operations; of an unfinished stage, those of its steps so far."""
        stated = number((self.finished or {}).get("flops"))
        if stated is not None:
            return stated
        latest = {record.get("step"): record for record in self.clock if record["kind"] == "step"}
        return total(latest.values(), "flops")

    @property
    def wall_seconds(self) -> float:
        """Time on the wall over all sessions, work repeated after a kill included."""
        return sum(_session_time(records, "wall_seconds") for records in by_session(self.clock).values())

    @property
    def cpu_seconds(self) -> float:
        """Processor time over all sessions, work repeated after a kill included."""
        return sum(_session_time(records, "cpu_seconds") for records in by_session(self.clock).values())

    def series(self, name: str) -> list[tuple[float, float]]:
        """(step, value) of a field of the steps, wherever it was recorded."""
        pairs = ((number(step.get("step")), number(step.get(name))) for step in self.steps)
        return [(x, y) for x, y in pairs if x is not None and y is not None]


@dataclass
class RunRecord:
    """A whole run. `state` is finished, running, stopped (killed or failed midway) or empty."""

    directory: Path
    run: Record
    stages: list[StageRecord]
    samples: list[Record]
    timings: list[Record]
    state: str
    chain: Head | None
    problem: str | None
    forks: list[Record] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The recipe's name, else the directory's."""
        return str(self.run.get("recipe") or self.directory.resolve().name)

    @property
    def machine(self) -> Record:
        """The machine of the last session, with what the run chose on it."""
        sessions = [record for record in self.timings if record["kind"] == "session"]
        machine = table(sessions[-1].get("machine")) if sessions else {}
        chosen = ("device", "dtype", "dtype_reason", "threads")
        return machine | {key: self.run[key] for key in chosen if key in self.run}

    @property
    def sessions(self) -> int:
        """How many times the run was started."""
        return len(by_session(self.timings))

    @property
    def wall_seconds(self) -> float:
        """Time on the wall that the run's processes lived; the time between sessions is not counted."""
        return max(_lifetime(self.timings), sum(stage.wall_seconds for stage in self.stages))

    @property
    def cpu_seconds(self) -> float:
        """Processor time of all stages and of getting started."""
        sessions = (record for record in self.timings if record["kind"] == "session")
        return total(sessions, "cpu_seconds") + sum(stage.cpu_seconds for stage in self.stages)

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory seen in any session."""
        return int(max(values(self.timings, "peak_memory_bytes"), default=0)) or None

    @property
    def overlap(self) -> float:
        """Held-out problems that were found in the training data; anything above 0 spoils the scores."""
        return total((data for stage in self.stages for data in stage.data), "train_held_out_overlap")

    @property
    def inherited(self) -> list[Record]:
        """Which stages a fork took over, and the SHA-256 of the last line of the ledger that it took them from."""
        return [inherited_of(fork) for fork in self.forks if fork["stages"]]

    @property
    def items_read(self) -> int:
        """Items of evaluations that stand in a source word for word, over all sources."""
        sources = (source for stage in self.stages for source in stage.sources)
        tables = (found for source in sources for found in table(source.get("contamination")).values())
        return int(total((found for found in tables if isinstance(found, dict)), "whole"))

    def stage(self, name: str | None) -> StageRecord | None:
        """The stage of that name."""
        return next((stage for stage in self.stages if stage.name == name), None)

    @property
    def result(self) -> StageRecord | None:
        """The stage whose model the run is about: the one its `run` record names, else the best evaluated."""
        named = self.stage(self.run.get("result"))
        if named is not None and named.eval is not None:
            return named
        evaluated = [(number(stage.eval.get("pass_at_1")), stage) for stage in self.stages if stage.eval]
        scored = [(score, stage) for score, stage in evaluated if score is not None and score == score]
        return max(scored, key=lambda pair: pair[0])[1] if scored else None

    def lineage(self, stage: StageRecord) -> list[StageRecord]:
        """The stage and its ancestors, from the stage back to the first."""
        found = [stage]
        for step in found:
            for parent in table_list(step.started.get("parents")):
                ancestor = self.stage(parent.get("stage"))
                if ancestor is not None and ancestor not in found:
                    found.append(ancestor)
        return found


def load_run(run_dir: str | os.PathLike[str]) -> RunRecord:
    """Reads a run, whole or partial. InputError when there is no ledger in the directory, RunError for a newer form.

    A broken chain doesn't stop the reading: `problem` says what is wrong, and what can be read is there.
    """
    directory = Path(run_dir)
    path = directory / "ledger.jsonl"
    if not path.is_file():
        raise InputError(
            f"{directory} has no ledger.jsonl: give the directory of a run, such as runs/r1-mini"
        )
    check_format(path)
    chain, problem = None, None
    try:
        chain = verify(path)
    except RunError as error:
        problem = str(error)
    records = [record for record in tolerant_records(path) if isinstance(record.get("kind"), str)]
    timings = read_timings(directory / "timings.jsonl")
    runs = [record for record in records if record["kind"] == "run"]
    return RunRecord(
        directory=directory,
        run=runs[-1] if runs else {},
        stages=_stages(records, timings),
        samples=list(tolerant_records(directory / "samples.jsonl")),
        timings=timings,
        state=_state(path, records),
        chain=chain,
        problem=problem,
        forks=[record for record in records if record["kind"] == "fork"],
    )


def inherited_of(fork: Record) -> Record:
    """What a fork's record says, as other programs are told it: `stages` and `ledger_head`."""
    return {"stages": list(map(str, fork["stages"])), "ledger_head": str(fork["parent"]["head"])}


def _state(path: Path, records: list[Record]) -> str:
    kinds = [record["kind"] for record in records]
    if "run_finished" in kinds and "stage_started" not in kinds[kinds.index("run_finished") :]:
        return "finished"
    if is_being_written(path):
        return "running"
    return "stopped" if kinds else "empty"


def _stages(records: list[Record], timings: list[Record]) -> list[StageRecord]:
    """Stages in the order they began; a stage begun anew (in a fork) replaces its earlier self."""
    stages: dict[str, StageRecord] = {}
    for record in records:
        name = record.get("stage")
        if not isinstance(name, str):
            continue
        if record["kind"] == "stage_started":
            stages.pop(name, None)
            kind = str(record.get("kind_of_stage") or "stage")
            stages[name] = StageRecord(name, kind, started=record)
        elif name in stages:
            _file(stages[name], record)
    for line in timings:
        if line.get("stage") in stages:
            stages[line["stage"]].clock.append(line)
    return list(stages.values())


def _file(stage: StageRecord, record: Record) -> None:
    lists = {
        "step": stage.steps,
        "eval": stage.evals,
        "data": stage.data,
        "source": stage.sources,
        "filter": stage.filters,
        "teacher": stage.teachers,
        "checkpoint": stage.checkpoints,
    }
    if record["kind"] in lists:
        lists[record["kind"]].append(record)
    elif record["kind"] == "stage_finished":
        stage.finished = record


def by_session(timings: Iterable[Record]) -> dict[Any, list[Record]]:
    """Lines of the clock by the session they belong to."""
    sessions: dict[Any, list[Record]] = {}
    for record in timings:
        sessions.setdefault(record.get("session"), []).append(record)
    return sessions


def _session_time(records: list[Record], name: str) -> float:
    """A stage's time in one session: as stated at its end, or added up when the session was killed before."""
    ends = [record for record in records if record["kind"] == "stage"]
    if ends:
        return total(ends, name)
    added = total(records, name)
    return max(added, _span(records)) if name == "wall_seconds" else added


def _span(records: list[Record]) -> float:
    times = list(values(records, "time"))
    return max(times) - min(times) if times else 0.0


def _lifetime(timings: list[Record]) -> float:
    before = total((record for record in timings if record["kind"] == "session"), "wall_seconds")
    return before + sum(_span(records) for records in by_session(timings).values())


def values(records: Iterable[Record], name: str) -> Iterable[float]:
    """The numbers of one field, wherever it stands."""
    return (value for record in records if (value := number(record.get(name))) is not None)


def total(records: Iterable[Record], name: str) -> float:
    """The sum of one field."""
    return sum(values(records, name))


def judged(steps: Iterable[Record]) -> float:
    """How many completions the steps of RL judged, verifier errors included."""
    verdicts = ("correct", "wrong", "unparseable", "error")
    return sum(total([step], verdict) for step in steps for verdict in verdicts)


def table(value: Any) -> Record:
    """The value when it is a table, else an empty one."""
    return value if isinstance(value, dict) else {}


def table_list(value: Any) -> list[Record]:
    """The tables of a list; anything else is left out."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
