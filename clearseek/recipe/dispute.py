"""Where two runs part: first by what their ledgers say, then by computing the stretch in question again.

Hashes of states are searched by halves: states that have parted stay apart, so that of a long stage only a few are
looked at. The ledgers tell the first step whose numbers differ and the stretch between two hashes; a replay of that
stretch, hashing after every step, tells the first step whose state differs, the tensor, and which ledger was right.
"""

import multiprocessing
from bisect import bisect_left
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from clearseek.config.load import difference, resolved
from clearseek.ledger.lines import exact, plain
from clearseek.ledger.log import first_difference
from clearseek.recipe.recorded import Record, RecordedRun, RecordedStage, enter_lane_of, read_run

States = dict[int, dict[str, str]]  # step → hash of every tensor of the state after it
_OWN = frozenset({"line", "prev", "time", "machine", "samples_lines"})
_TOLD_BY_RECIPE = frozenset({"line", "prev", "recipe_sha256", "seed"})


@dataclass(frozen=True)
class Parting:
    """The first place where two runs differ, as their ledgers tell it.

    `what` names it in words; of steps, `step` is the first with another number, `same_state` the last state that both
    have, `other_state` the first that is another.
    """

    stage: str
    what: str
    step: int | None = None
    same_state: int = 0
    other_state: int | None = None


def differences_of_recipes(first: RecordedRun, second: RecordedRun) -> list[str]:
    """The lines of the recipes that differ."""
    return difference(resolved(first.recipe), resolved(second.recipe))


def differences_of_machines(first: RecordedRun, second: RecordedRun) -> list[str]:
    """In what the sessions that began the two runs differ: lane, device, threads, versions."""
    old, new = (
        {key: value for key, value in _first_session(run).items() if key not in _TOLD_BY_RECIPE}
        for run in (first, second)
    )
    return difference(old, new)


def _first_session(run: RecordedRun) -> Record:
    return next(iter(run.stages.values())).session if run.stages else {}


def first_parting(first: RecordedRun, second: RecordedRun) -> Parting | None:
    """Where two ledgers first say something else; None: nowhere in the stages that both have."""
    for name, stage in first.stages.items():
        other = second.stages.get(name)
        if other is None:
            return Parting(name, "only one of the runs has this stage")
        found = _in_stage(stage, other)
        if found is not None:
            return found
    return next(
        (Parting(n, "only one of the runs has this stage") for n in second.stages if n not in first.stages),
        None,
    )


def _in_stage(first: RecordedStage, second: RecordedStage) -> Parting | None:
    """What it begins with and reads, then its steps, then what it was found to be: evaluations, and what it left."""
    for what in (_before_steps, _steps, _others):
        if (found := what(first, second)) is not None:
            return found
    return None


def _before_steps(first: RecordedStage, second: RecordedStage) -> Parting | None:
    ends = [min((step["line"] for step in stage.steps.values()), default=0) for stage in (first, second)]
    before, now = (
        [stage.started, *(record for record in stage.others if record["line"] < end)]
        for stage, end in zip((first, second), ends, strict=True)
    )
    return _in_records(first.name, before, now)


def _others(first: RecordedStage, second: RecordedStage) -> Parting | None:
    return _in_records(first.name, first.others, second.others)


def _in_records(stage: str, first: list[Record], second: list[Record]) -> Parting | None:
    for before, now in zip_longest(first, second):
        record = before or now
        if before is None or now is None:
            found: str | None = "only one of the runs has it"
        else:
            found = _differs(before, now)
        if found is not None:
            return Parting(stage, f"{record['kind']} in line {record['line']}: {found}")
    return None


def _steps(first: RecordedStage, second: RecordedStage) -> Parting | None:
    same, other = bisect_states(first, second)
    for step in range(1, max([*first.steps, *second.steps], default=0) + 1):
        before, now = first.steps.get(step), second.steps.get(step)
        if before is None or now is None:
            found: str | None = "only one of the runs has it"
        else:
            found = _differs(before, now)
        if found is not None and step <= same:  # numbers alone differ: the states agree, before and after
            return Parting(first.name, f"step {step}: {found}", step)
        if found is not None:
            return Parting(first.name, f"step {step}: {found}", step, same, other)
    return None


def bisect_states(first: RecordedStage, second: RecordedStage) -> tuple[int, int | None]:
    """The last step after which both have the same state (0: the start), and the first with another (None: none)."""
    steps = [
        n for n, record in first.steps.items() if "state" in record and "state" in second.steps.get(n, {})
    ]
    place = bisect_left(steps, True, key=lambda n: first.steps[n]["state"] != second.steps[n]["state"])
    return (steps[place - 1] if place else 0), (steps[place] if place < len(steps) else None)


def _differs(before: Record, after: Record) -> str | None:
    old, new = (
        {key: value for key, value in record.items() if key not in _OWN} for record in (before, after)
    )
    if exact(plain(old, "")) == exact(plain(new, "")):
        return None
    field, was, found = first_difference(plain(old, ""), plain(new, ""))
    return f"{field} is {was} and {found}"


def compute_again(run_dir: Path, parting: Parting) -> tuple[str | None, States]:
    """The stretch of a parting in one run: how its ledger differs from what is computed, and all tensors' hashes.

    In a process of its own, since torch takes on a run's lane only once. RunError where it can't be computed here.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_compute, run_dir, parting).result()


def _compute(run_dir: Path, parting: Parting) -> tuple[str | None, States]:
    run = read_run(run_dir)
    reason = enter_lane_of(run, [parting.stage])
    from clearseek.recipe.replay import StageReplay

    last = parting.other_state or parting.step
    assert last is not None
    ledger = run.recipe.ledger.model_copy(update={"hash_every": 1})
    run.recipe = run.recipe.model_copy(update={"ledger": ledger})
    replay = StageReplay(run, parting.stage)
    try:
        outcome = next(replay.steps([last]))
        note = f" (but {reason}: a difference proves nothing)" if reason and outcome.difference else ""
        return outcome.difference and f"{outcome.difference}{note}", replay.context.held.held
    finally:
        replay.close()


def first_tensor(
    first: dict[int, dict[str, str]], second: dict[int, dict[str, str]]
) -> tuple[int, str] | None:
    """The first step that both computed whose states differ, with the first tensor by name; None: no state does."""
    for step in sorted(first.keys() & second.keys()):
        for name in sorted(first[step].keys() | second[step].keys()):
            if first[step].get(name) != second[step].get(name):
                return step, name
    return None


def written_tensor(first: RecordedRun, second: RecordedRun, parting: Parting) -> str | None:
    """The first tensor that differs at the first hash that does, as both runs have written it; None: one has not."""
    from clearseek.train.leaves import LeavesFile

    step = parting.other_state or 0
    old, new = (
        LeavesFile(run.run_dir / "states" / parting.stage / "leaves.jsonl").read() for run in (first, second)
    )
    found = (
        first_tensor({step: old.get(step, {})}, {step: new.get(step, {})})
        if step in old and step in new
        else None
    )
    return None if found is None else found[1]
