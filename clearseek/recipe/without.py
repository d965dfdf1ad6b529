"""What can be left out of a run, where it was read or asked, and which stages come after. Nothing here loads torch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clearseek.config.errors import InputError, RunError
from clearseek.config.load import nearest
from clearseek.config.recipe import Recipe, RejectStage, RlStage, TokenizerStage, TrainStage
from clearseek.ledger.record import load_run
from clearseek.recipe.recorded import RecordedRun
from clearseek.tasks.problem import Problem
from clearseek.trace.kept import document_sha256, text_of
from clearseek.trace.problem_source import ProblemSource
from clearseek.trace.rollouts import open_rollouts
from clearseek.trace.sources import RunReadings, StageReading, run_readings, source_documents

PROBLEMS = "problems"
_SHORTEST_HASH = 8
_LONGEST_PROBLEM = 16  # digits of a problem's id


@dataclass(frozen=True)
class Place:
    """Where a stage has something from: one of its sources by number, or (None) the problems that it asks."""

    stage: str
    source: int | None

    def __str__(self) -> str:
        """As a person names it."""
        return f"{self.stage}/{PROBLEMS if self.source is None else self.source}"


@dataclass(frozen=True)
class Without:
    """What is left out: whole places, or in them `only` documents by their hash, or problems by their id."""

    told: str
    places: tuple[Place, ...]
    only: frozenset[str] | None = None

    @property
    def stages(self) -> frozenset[str]:
        """The stages that something is left out of."""
        return frozenset(place.stage for place in self.places)

    def is_at(self, stage: str, source: int | None) -> bool:
        """Whether something is left out of that place."""
        return Place(stage, source) in self.places

    def has(self, stage: str, source: int | None, name: str) -> bool:
        """Whether this document (by its hash), or problem (by its id), is left out there."""
        return self.is_at(stage, source) and (self.only is None or name in self.only)


@dataclass(frozen=True)
class Target:
    """The stage whose model is asked, and the stages that are looked at: those it comes from, or it alone."""

    stage: str
    way: tuple[str, ...]


def find_target(run: RecordedRun, to: str | None = None, alone: str | None = None) -> Target:
    """The run's final model with all that it comes from; `to` names another, `alone` one without what came before.

    InputError for a stage that leaves no model, RunError where one on the way isn't finished.
    """
    recipe = run.recipe
    target = alone or to or _final(recipe)
    if target not in recipe.stages:
        known = [name for name, stage in recipe.stages.items() if isinstance(stage, TrainStage)]
        raise InputError(
            f"{run.run_dir} has no stage {target!r}{nearest(target, known)}; stages with a model: {', '.join(known)}"
        )
    if not isinstance(recipe.stages[target], TrainStage):
        raise InputError(
            f"stage {target} ({recipe.stages[target].kind}) leaves no model to ask; name a stage that trains one"
        )
    way = (target,) if alone else way_to(recipe, target)
    for name in way:
        if name not in run.stages or run.stages[name].finished is None:
            raise RunError(
                f"{run.run_dir} isn't finished: stage {name} has not ended. Continue it with `clearseek run`, or ask "
                "an earlier stage with --to or --stage"
            )
    return Target(target, way)


def _final(recipe: Recipe) -> str:
    """The stage that the recipe calls final, else its last with a model."""
    trained = [name for name, stage in recipe.stages.items() if isinstance(stage, TrainStage)]
    if not trained:
        raise InputError("the recipe of this run has no stage that trains a model: there is nothing to ask")
    return recipe.final if recipe.final in trained else trained[-1]


def parents_of(recipe: Recipe, name: str) -> set[str]:
    """The stages whose model, tokenizer or examples a stage begins with."""
    stage = recipe.stages[name]
    sources = getattr(stage, "data", []) + getattr(stage, "sft_data", [])
    named = {getattr(stage, "start", None), getattr(stage, "tokenizer", None)}
    named |= {source.stage for source in sources} | set(getattr(stage, "include_retired", []))
    if getattr(stage, "start", None) in recipe.models and getattr(stage, "tokenizer", None) is None:
        named |= {other for other, one in recipe.stages.items() if isinstance(one, TokenizerStage)}
    return {one for one in named if one in recipe.stages}


def way_to(recipe: Recipe, target: str) -> tuple[str, ...]:
    """The stages that a stage's model comes from, itself the last, in the recipe's order."""
    found, waiting = set[str](), [target]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += parents_of(recipe, name)
    return tuple(name for name in recipe.stages if name in found)


def computed_again(recipe: Recipe, without: Without, target: Target) -> list[str]:
    """The stages on the way that may come out otherwise: those it is left out of, and all that come from one."""
    again: list[str] = []
    for name in target.way:
        if name in without.stages or parents_of(recipe, name) & set(again):
            again.append(name)
    return again


def seconds_of(run_dir: Path, stages: Sequence[str]) -> float | None:
    """What these stages took in the run by its clock, evaluations included; None where one was not timed."""
    record = load_run(run_dir)
    seconds = [found.wall_seconds for name in stages if (found := record.stage(name)) is not None]
    return sum(seconds) if len(seconds) == len(stages) and all(seconds) else None


def find_without(run: RecordedRun, told: str, target: Target) -> Without:
    """What STAGE/NUMBER, STAGE/problems, a document's hash or a problem's id means (8 digits do).

    InputError where it is none of them, or nothing on the way to the target has read it.
    """
    readings = run_readings(run.run_dir)
    places = {str(place): place for place in _places(run, readings)}
    if told in places:
        return _on_the_way(Without(told, (places[told],)), target)
    if told.rpartition("/")[0] in {one.name for one in readings.others if one.kind == "tokenizer"}:
        raise InputError(
            f"{told} is a source of a tokenizer, which stays as it is here; leave out what a later stage has read"
        )
    if len(told) < _SHORTEST_HASH or set(told) - set("0123456789abcdef"):
        raise InputError(
            f"{told!r} is no source of this run and no document's or problem's hash{nearest(told, list(places))}; "
            f"sources: {', '.join(places)}; of a hash the first {_SHORTEST_HASH} digits do"
        )
    on_the_way = [place for place in places.values() if place.stage in target.way]
    found = _named(_documents(readings, on_the_way), told)
    if not found and len(told) <= _LONGEST_PROBLEM:
        found = _named(_problems(run, readings, on_the_way), told)
    if len(found) > 1:
        raise InputError(
            f"several documents or problems have a hash that begins with {told}: give more of it"
        )
    for name, holders in found.items():
        return Without(told, tuple(holders), frozenset([name]))
    where = f"stage {target.stage}" if len(target.way) == 1 else f"no stage on the way to {target.stage}"
    verb = "has not" if len(target.way) == 1 else "has"
    raise InputError(
        f"no document or problem whose hash begins with {told}: {where} {verb} read or asked one"
    )


def _on_the_way(without: Without, target: Target) -> Without:
    if without.stages <= set(target.way):
        return without
    (stage,) = without.stages
    raise InputError(
        f"{without.told} is of stage {stage}, which the model of {target.stage} "
        + ("is not" if len(target.way) == 1 else "does not come from")
        + f": ask --to {stage} or a stage that comes from it"
    )


def _places(run: RecordedRun, readings: RunReadings) -> list[Place]:
    """Everything that can be left out whole: sources of documents, and the problems that models were asked."""
    sources = [Place(one.name, number) for one in readings.stages for number in range(len(one.data))]
    asking = [
        Place(name, None) for name in run.stages if isinstance(run.recipe.stages[name], RlStage | RejectStage)
    ]
    return sources + asking


def _named(pairs: Iterator[tuple[str, Place]], told: str) -> dict[str, list[Place]]:
    """The names that begin with `told`, each with its places in order."""
    found: dict[str, list[Place]] = {}
    for name, place in pairs:
        if name.startswith(told) and place not in found.setdefault(name, []):
            found[name].append(place)
    return found


def _documents(readings: RunReadings, places: Sequence[Place]) -> Iterator[tuple[str, Place]]:
    for place in places:
        if place.source is not None:
            for document in source_documents(readings, readings.stage(place.stage), place.source):
                yield document_sha256(text_of(document)), place


def _problems(
    run: RecordedRun, readings: RunReadings, places: Sequence[Place]
) -> Iterator[tuple[str, Place]]:
    for place in places:
        if place.source is None:
            for _, problem, _ in asked_problems(run, readings, place.stage):
                yield problem.id, place


def asked_problems(
    run: RecordedRun, readings: RunReadings, stage: str
) -> Iterator[tuple[int, Problem, int | None]]:
    """Every problem that a stage asked: step or round (from 1), problem, tokens of its answers where they are kept.

    RunError where a run of an older clearseek kept none of a stage of reinforcement learning.
    """
    table = run.recipe.stages[stage]
    if isinstance(table, RejectStage):
        source = ProblemSource(table.problems, readings.seed, stage)
        for number in run.stages[stage].steps:
            yield from ((number, problem, None) for problem in source.batch(number - 1, table.count))
        return
    rollouts = open_rollouts(run.run_dir, _reading(readings, stage))
    if rollouts is None:
        raise RunError(f"{run.run_dir} keeps no rollouts of stage {stage}: an older clearseek made this run")
    yield from rollouts.asked()


def _reading(readings: RunReadings, stage: str) -> StageReading:
    return next(one for one in (*readings.stages, *readings.others) if one.name == stage)
