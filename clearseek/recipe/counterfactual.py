"""A run's way to one of its models, computed again without something: each stage that it reaches, on top of the last.

It runs the stages' own code in a folder that looks like the run, in which stages that stay as they were are links to
the run's. A stage begins from the last state that the run kept before the first use of what is left out; one whose
model or examples came out as they were ends the search there, since all that follows is known.
"""

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.config.progress import Progress, SilentProgress
from clearseek.config.recipe import Recipe, RejectStage, RlStage, TrainStage
from clearseek.ledger.lines import file_sha256
from clearseek.recipe.lane import compile_in
from clearseek.recipe.recorded import RecordedRun, RecordedStage
from clearseek.recipe.replay import session_choice
from clearseek.recipe.replay_context import HeldLeaves
from clearseek.recipe.silent import SilentLedger, SilentTimings
from clearseek.recipe.stages import checkpoint_path, run_stage
from clearseek.recipe.without import Place, Target, Without, asked_problems, computed_again, parents_of
from clearseek.recipe.without_context import Read, Seen, Untouched, WithoutContext
from clearseek.tasks.problem import Problem
from clearseek.tasks.worker import VerifierPool
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.sources import run_readings
from clearseek.train.corpus import kept_samples_path


@dataclass(frozen=True)
class Again:
    """A stage that was computed again: from the state after which step, whether it sampled anew, what came of it.

    `first_step` is the first that used what is left out (None: it began with another model, or with other examples).
    """

    stage: str
    kind: str
    first_step: int | None
    begun_at: int
    steps: int
    sampled_anew: bool
    is_other: bool


class _Heard(SilentLedger):
    """Notes the files that a stage leaves; where it begins as the run did, with what the run began with."""

    def __init__(self, recorded: RecordedStage, is_anew: bool) -> None:
        super().__init__(0)
        self.recorded, self.is_anew, self.steps = recorded, is_anew, 0
        self.outputs: list[dict[str, Any]] = []

    def append(self, kind: str, stage: str | None = None, **fields: Any) -> None:
        """Note one record."""
        if kind == "step":
            self.steps = int(fields["step"])
        elif kind == "stage_finished":
            self.outputs = fields["outputs"]
        elif kind == "stage_started" and not self.is_anew:
            named = {parent["sha256"] for parent in self.recorded.started.get("parents") or []}
            if any(parent["sha256"] not in named for parent in fields["parents"]):
                raise RunError(
                    f"stage {self.recorded.name} began with other files than lie there now (line "
                    f"{self.recorded.started['line']} of the ledger): they were changed, or the run was half copied"
                )


class Counterfactual:
    """The way to a run's model without something, in the folder `work`.

    With `seed` nothing is left out: the stages that would be are computed from their start with another seed.
    """

    def __init__(
        self,
        run: RecordedRun,
        without: Without,
        target: Target,
        work: Path,
        progress: Progress | None = None,
        seed: int | None = None,
    ) -> None:
        self.run, self.told, self.target, self.work, self.seed = run, without, target, work, seed
        self.without = without if seed is None else Without("another seed", ())
        self.progress = progress or SilentProgress()
        self.readings = run_readings(run.run_dir)
        self.wanted = computed_again(run.recipe, without, target)
        for name in self.wanted:
            session_choice(run, run.stage(name))  # refuses before anything is computed
        self._refuse_nothing_kept()
        self.changed: set[str] = set()
        self.rewritten: set[str] = set()
        self.again: list[Again] = []
        self.seen: list[Seen] = []
        self.read: dict[str, Read] = {}
        self.verifiers = VerifierPool()

    def compute(self) -> Path | None:
        """The directory of the target's model without; None where it is the run's own, to the last bit."""
        try:
            for name in self.run.recipe.stages:
                if name not in self.wanted or not self._compute(name):
                    self._link(name)
        finally:
            self.verifiers.close()
        return checkpoint_path(self.work, self.target.stage) if self.target.stage in self.changed else None

    def _compute(self, name: str) -> bool:
        """Compute a stage again where something reaches it; whether its files lie in the folder now."""
        parents = parents_of(self.run.recipe, name)
        told = name in self.without.stages
        is_anew = bool(parents & self.changed) or (self.seed is not None and name in self.told.stages)
        if not told and not is_anew:
            return False
        stage, recorded = self.run.recipe.stages[name], self.run.stage(name)
        self.progress.stage(name, stage.kind, self.wanted.index(name) + 1, len(self.wanted))
        first = self._note_asked(name) if told else None
        if isinstance(stage, RlStage) and self.without.is_at(name, None) and self.without.only is None:
            return self._skip(name, stage)
        if isinstance(stage, RejectStage) and first is None and not is_anew:
            return False
        ledger = _Heard(recorded, is_anew)
        context = self._context(name, recorded, ledger, is_anew, first)
        try:
            with self._explained(name):
                run_stage(context, _never)
        except Untouched:
            return False
        finally:
            self.seen += context.seen
            if context.read is not None:
                self.read[name] = context.read
        self._compare(name, ledger, context)
        return True

    def _compare(self, name: str, ledger: _Heard, context: WithoutContext) -> None:
        """Note whether a stage has left other files than the run's: what comes from them is computed on top."""
        finished, stage = ledger.recorded.finished or {}, self.run.recipe.stages[name]
        examples = [kept_samples_path(folder, name) for folder in (self.work, self.run.run_dir)]
        if _hashes(ledger.outputs) != _hashes(finished.get("outputs") or []):
            self.changed.add(name)
        if isinstance(stage, RlStage | RejectStage) and len({_content(path) for path in examples}) > 1:
            self.rewritten.add(name)
            self.changed.add(name)
        self.again.append(
            Again(
                stage=name,
                kind=stage.kind,
                first_step=context.first_step or context.first_asked,
                begun_at=context.begun_at,
                steps=ledger.steps,
                sampled_anew=isinstance(stage, RlStage | RejectStage),
                is_other=name in self.changed,
            )
        )

    @contextlib.contextmanager
    def _explained(self, name: str) -> Any:
        """A stage that can't go on from what came before it says so, and what can be asked instead."""
        try:
            yield
        except RunError as error:
            if not self.changed:
                raise
            raise RunError(
                f"without {self.told.told} the recipe doesn't come to its end: stage {name}: {error}. Give --stage "
                f"with one of {', '.join(sorted(self.told.stages))} for the answer there"
            ) from error

    def _context(
        self, name: str, recorded: RecordedStage, ledger: _Heard, is_anew: bool, first: int | None
    ) -> WithoutContext:
        choice, run = session_choice(self.run, recorded), self.run
        stage = run.recipe.stages[name]
        is_asking = isinstance(stage, RlStage)
        return WithoutContext(
            recipe=_unexamined(run.recipe, name, self.seed),
            stage=name,
            run_dir=self.work,
            ledger=ledger,
            samples=SilentLedger(0),
            timings=SilentTimings(),
            progress=self.progress,
            verifiers=self.verifiers,
            device=choice.device,
            dtype=choice.dtype,
            compile=compile_in(recorded.session.get("lane"), run.recipe),
            examine=lambda *_: {},
            readings=self.readings,
            recorded=recorded,
            tokenizer=Tokenizer.load(checkpoint_path(run.run_dir, name)) if is_asking else None,
            held=HeldLeaves(),
            without=self.without,
            is_anew=is_anew,
            rewritten=frozenset(self.rewritten),
            first_asked=first,
        )

    def _note_asked(self, name: str) -> int | None:
        """Note what a stage was asked of what is left out; the first step that asked it."""
        if not self.without.is_at(name, None):
            return None
        found = [
            (step, tokens)
            for step, problem, tokens in asked_problems(self.run, self.readings, name)
            if self.without.has(name, None, problem.id)
        ]
        first = min((step for step, _ in found), default=None)
        kept = [tokens for _, tokens in found if tokens is not None]
        tokens = sum(kept) if len(kept) == len(found) else None
        self.seen.append(Seen(str(Place(name, None)), len(found), tokens, first))
        return first

    def problems_of(self, name: str) -> dict[str, tuple[Problem, int]]:
        """What a stage asked, by id: the problem and the tokens of all its answers."""
        found: dict[str, tuple[Problem, int]] = {}
        for _, problem, tokens in asked_problems(self.run, self.readings, name):
            found[problem.id] = problem, found.get(problem.id, (problem, 0))[1] + (tokens or 0)
        return found

    def _skip(self, name: str, stage: RlStage) -> bool:
        """A stage that asks nothing learns nothing: its model is the one that it starts with."""
        start = checkpoint_path(self.work, stage.start) if stage.start in self.run.recipe.stages else None
        if start is None:
            raise InputError(
                f"stage {name} without all of its problems is {stage.start!r} as it starts, which is no stage's model: "
                "leave out one problem by its id"
            )
        checkpoint_path(self.work, name).symlink_to(start.resolve(), target_is_directory=True)
        kept_samples_path(self.work, name).write_text("", encoding="utf-8")
        self.changed.add(name)
        self.rewritten.add(name)
        self.again.append(Again(name, stage.kind, 1, 0, 0, False, True))
        return True

    def _refuse_nothing_kept(self) -> None:
        """A reject stage that asks nothing would leave nothing: what is meant are its examples where they are read."""
        for place in self.without.places:
            stage = self.run.recipe.stages[place.stage]
            if isinstance(stage, RejectStage) and self.without.only is None:
                readers = [
                    f"{one.name}/{number}"
                    for one in self.readings.stages
                    for number, source in enumerate(one.sources)
                    if source.stage == place.stage
                ]
                raise InputError(
                    f"without {place} stage {place.stage} would leave nothing to learn from: leave out what it wrote, "
                    f"where it is read: {', '.join(readers) or 'nowhere'}"
                )

    def _link(self, name: str) -> None:
        """Let a stage stand in the folder as the run has it."""
        for find in (checkpoint_path, kept_samples_path):
            target, link = find(self.run.run_dir, name), find(self.work, name)
            link.parent.mkdir(parents=True, exist_ok=True)
            if target.exists() and not link.exists():
                link.symlink_to(target.resolve(), target_is_directory=target.is_dir())


def check_alone(recorded: RecordedStage) -> None:
    """RunError for a stage that several processes computed: one doesn't come to the same bits."""
    if (processes := recorded.session.get("processes", 1)) != 1:
        raise RunError(
            f"stage {recorded.name} was computed by {processes} processes, whose sums one process rounds otherwise: "
            "what it learnt from something can't be told from that"
        )


def keep_changed(work: Path) -> None:
    """Drop from the folder what is only a link into the run; the rest may be kept."""
    for folder in (work / "checkpoints", work / "data"):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_symlink():
                path.unlink()
            elif path.is_dir() and folder.name == "data":
                shutil.rmtree(path)  # sources read again


def _unexamined(recipe: Recipe, name: str, seed: int | None) -> Recipe:
    """The recipe with one stage that isn't evaluated: its scores are nobody's question."""
    stage = recipe.stages[name]
    changes: dict[str, Any] = {}
    if isinstance(stage, TrainStage):
        changes = {"evaluate": False, "evaluate_every": 0}
        if data := getattr(stage, "data", None):
            changes["data"] = [source.model_copy(update={"hold_out_every": 0}) for source in data]
    stages = recipe.stages | {name: stage.model_copy(update=changes)}
    return recipe.model_copy(
        update={"stages": stages} | ({} if seed is None else {"seed": seed}),
    )


def _hashes(outputs: Sequence[dict[str, Any]]) -> set[tuple[str, str]]:
    return {(str(file["path"]), str(file["sha256"])) for file in outputs}


def _content(path: Path) -> str:
    return file_sha256(path) if path.is_file() else ""


def _never() -> Any:
    raise AssertionError("a stage computed again was evaluated")
