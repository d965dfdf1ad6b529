"""A run as it is recorded, read to be computed again: its recipe, and what the ledger says of every stage."""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.config.load import load_recipe, nearest
from clearseek.config.recipe import Recipe
from clearseek.ledger.lanes import enter, find_lane, why_not_here
from clearseek.ledger.lines import read_back
from clearseek.ledger.verifier import KEY, LEDGER, SEAL, Wrong, check_lines, check_seal, read_lines
from clearseek.trace.excerpt import check_whole

Record = dict[str, Any]


@dataclass
class RecordedStage:
    """The lines of one stage, and the session that it was computed in; `others` are all but the first and steps."""

    name: str
    session: Record
    started: Record
    steps: dict[int, Record] = field(default_factory=dict)
    mix: Record | None = None
    finished: Record | None = None
    others: list[Record] = field(default_factory=list)

    @property
    def evaluations(self) -> list[Record]:
        """Its `eval` records: on the way by their step, 0 of a stage that does nothing else, −1 at the end."""
        return [record for record in self.others if record["kind"] == "eval"]

    def next_state(self, step: int) -> int | None:
        """The first step from `step` on whose state is recorded by its hash."""
        return min((n for n, record in self.steps.items() if n >= step and "state" in record), default=None)


@dataclass
class RecordedRun:
    """A run whose ledger holds in itself; `seal_root` is what its seal signs, "" where it has none."""

    run_dir: Path
    recipe: Recipe
    stages: dict[str, RecordedStage]
    seal_root: str

    def stage(self, name: str) -> RecordedStage:
        """The stage of that name. InputError lists those that were begun."""
        if name not in self.stages:
            raise InputError(
                f"{self.run_dir} has no stage {name!r}{nearest(name, list(self.stages))}; stages: "
                f"{', '.join(self.stages)}"
            )
        return self.stages[name]

    def examined(self, name: str | None = None) -> list[str]:
        """The stages that have evaluations, or the one of that name. InputError where there is none."""
        found = [stage.name for stage in self.stages.values() if stage.evaluations]
        if name is not None and self.stage(name).name not in found:
            raise InputError(
                f"{self.run_dir}: stage {name} has no evaluation; those that have: {', '.join(found) or 'none'}"
            )
        if not found:
            raise InputError(f"{self.run_dir} has no evaluation to compute again")
        return found if name is None else [name]

    def find_step(self, step: int, stage: str | None) -> tuple[str, int]:
        """Stage and step, where the stage may be left out if only one has the step."""
        chosen = [self.stage(stage)] if stage else list(self.stages.values())
        found = [one.name for one in chosen if step in one.steps]
        if len(found) == 1:
            return found[0], step
        if found:
            raise InputError(
                f"several stages have a step {step}: give --stage with one of {', '.join(found)}"
            )
        counts = ", ".join(f"{one.name} 1 to {max(one.steps)}" for one in chosen if one.steps)
        raise InputError(f"{self.run_dir}: no step {step}; there are {counts or 'none'}")

    def draw(self, count: int, seed: int) -> list[tuple[str, int]]:
        """`count` random steps, or all there are, in the order they were computed; InputError where there is none.

        Every stage gets one, or as many stages as there are steps to draw; the rest go by numbers of steps (Webster).
        """
        lengths = {name: len(stage.steps) for name, stage in self.stages.items() if stage.steps}
        if not lengths:
            raise InputError(f"{self.run_dir} has no step to compute again")
        rng = random.Random(seed)
        shares = dict.fromkeys(rng.sample(sorted(lengths), min(count, len(lengths))), 1)
        for _ in range(min(count, sum(lengths.values())) - len(shares)):
            room = [name for name in lengths if shares[name] < lengths[name]]
            shares[max(room, key=lambda name: lengths[name] / (2 * shares[name] + 1))] += 1
        return [
            (name, step)
            for name in lengths
            if name in shares
            for step in sorted(rng.sample(sorted(self.stages[name].steps), shares[name]))
        ]


def read_run(run_dir: Path, to_compute: bool = True) -> RecordedRun:
    """Read a run and check lines and seal; `to_compute` wants weights and states, too.

    InputError where there is none, RunError names what is wrong with it.
    """
    if not (run_dir / LEDGER).is_file():
        raise InputError(f"{run_dir} has no {LEDGER}: give the directory of a run, such as runs/r1-mini")
    if to_compute:
        check_whole(run_dir)
    try:
        lines, _ = read_lines(run_dir / LEDGER)
        records = [{key: read_back(value) for key, value in record.items()} for record in check_lines(lines)]
        sealed = any((run_dir / name).exists() for name in (SEAL, KEY))
        root = check_seal(run_dir, lines)[1].hex() if sealed else ""
    except Wrong as error:
        raise RunError(f"{run_dir}: {error}") from None
    if not (run_dir / "recipe.toml").is_file():
        raise RunError(f"{run_dir} has no recipe.toml: the run was half copied")
    return RecordedRun(run_dir, load_recipe(run_dir / "recipe.toml"), _stages(records), root)


def enter_lane_of(run: RecordedRun, stages: Iterable[str]) -> str | None:
    """Set the environment of the lane that stages were computed in, before torch is loaded.

    Returns in one line why this machine can't offer the lane, None where it can. RunError for several lanes.
    """
    sessions = [run.stage(name).session for name in stages]
    lanes = sorted({str(session.get("lane") or "") for session in sessions})
    if len(lanes) > 1:
        raise RunError(
            f"these steps were computed in several lanes ({', '.join(lanes)}): replay one stage at a time"
        )
    if not sessions:
        return None
    if lanes[0]:
        enter(find_lane(lanes[0]))
    reason = why_not_here(lanes[0] or None, sessions[0].get("machine") or {})
    if reason is not None:
        return reason
    from clearseek.recipe.lane import (
        why_other_bits,
    )  # loads torch, which the lane's environment had to precede

    return why_other_bits(sessions[0])


def _stages(records: list[Record]) -> dict[str, RecordedStage]:
    stages: dict[str, RecordedStage] = {}
    session: Record = {}
    for record in records:
        kind, name = record["kind"], str(record.get("stage"))
        if kind == "run":
            session = record
        elif kind == "stage_started":
            stages[name] = RecordedStage(name, session, record)
        elif kind == "step":
            stages[name].steps[int(record["step"])] = record
        elif name in stages:
            _file(stages[name], record)
    return stages


def _file(stage: RecordedStage, record: Record) -> None:
    stage.others.append(record)
    if record["kind"] == "mix":
        stage.mix = record
    elif record["kind"] == "stage_finished":
        stage.finished = record
