"""Computes steps of a run again, from the nearest state that it kept, and compares them with its ledger bit by bit.

It runs the stages' own code; only what they are given differs: documents and rollouts are those that the run kept,
nothing is written, and every record is compared with the one in the ledger instead of appended to it.
"""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from clearseek.config.errors import RunError
from clearseek.config.progress import Progress, SilentProgress
from clearseek.config.recipe import RejectStage, TrainStage
from clearseek.ledger.lanes import NATIVE
from clearseek.model.device import DeviceChoice
from clearseek.model.stored import load_tensors
from clearseek.recipe.lane import capability, compile_in, enter_lane
from clearseek.recipe.recorded import Record, RecordedRun, RecordedStage
from clearseek.recipe.replay_context import ComparingLedger, HeldLeaves, Reached, ReplayContext
from clearseek.recipe.silent import SilentLedger, SilentTimings
from clearseek.recipe.stages import TRAINERS, Start, Trainer, find_start
from clearseek.tasks.worker import VerifierPool
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.sources import run_readings
from clearseek.train.adapters import begin_adapter
from clearseek.train.leaves import LeavesFile
from clearseek.train.parallel import joined_world, own_device, world
from clearseek.train.reject import RejectionSampler
from clearseek.train.state import ResumePoint, kept_states
from clearseek.train.state_hash import first_difference, leaves_of, root_of


@dataclass(frozen=True)
class StepReplay:
    """One step computed again; `difference` names the first field or tensor that is another, None: all is the same."""

    stage: str
    step: int
    loss: float | None
    grad_norm: float | None
    state_step: int | None  # the step after which the states' hashes were compared: this one, or soon after
    difference: str | None


def replay_steps(
    run: RecordedRun,
    wanted: Sequence[tuple[str, int]],
    resample: bool = False,
    progress: Progress | None = None,
) -> Iterator[StepReplay]:
    """Compute (stage, step) pairs again, stage by stage in the order of the recipe.

    What several processes computed is replayed by as many, each of which calls this; the first compares.
    """
    by_stage: dict[str, list[int]] = {}
    for name, step in wanted:
        by_stage.setdefault(name, []).append(step)
    device = str(run.stage(wanted[0][0]).session["device"]) if wanted else "cpu"
    with joined_world(own_device(torch.device(device))):
        for name in (name for name in run.stages if name in by_stage):
            replay = StageReplay(run, name, resample, progress)
            try:
                yield from replay.steps(by_stage[name])
            finally:
                replay.close()


class StageReplay:
    """One stage of a run, ready to compute any of its steps again."""

    def __init__(
        self, run: RecordedRun, name: str, resample: bool = False, progress: Progress | None = None
    ) -> None:
        self.run, self.recorded, self.stage = run, run.stage(name), run.recipe.stages[name]
        choice = session_choice(run, self.recorded)
        self.start = checked_start(run, self.recorded, choice)
        self.context = replay_context(run, self.recorded, choice, self.start.tokenizer, resample, progress)
        if isinstance(self.stage, TrainStage):
            self.context.adapter = begin_adapter(self.context, self.stage, self.start.model.config)
        self.points = kept_states(self.context.states_dir)

    def close(self) -> None:
        """End what was started."""
        self.context.verifiers.close()

    def steps(self, wanted: Sequence[int]) -> Iterator[StepReplay]:
        """Compute the wanted steps again, in order; each is compared, and so is every step on the way to it."""
        if isinstance(self.stage, RejectStage):
            yield from (self._round(step) for step in sorted(wanted))
            return
        trainer = self.trainer()
        for first, some in self.by_point(wanted).items():
            ends = [self.recorded.next_state(step) for step in some]
            until = max(end or step for end, step in zip(ends, some, strict=True))
            wrong = self.compute(trainer, first, until)
            yield from (self._outcome(step, end, wrong) for step, end in zip(some, ends, strict=True))

    def trainer(self) -> Trainer:
        """What computes its steps; not of a stage of rejection sampling."""
        return TRAINERS[type(self.stage)](self.context, self.stage, self.start.model, self.start.tokenizer)

    def by_point(self, wanted: Iterable[int]) -> dict[int, list[int]]:
        """Steps by the step whose kept state leads to them; from the start (0) first, nothing else leads back there."""
        found: dict[int, list[int]] = {}
        for step in sorted(set(wanted)):
            found.setdefault(max((p.step for p in self.points if p.step < step), default=0), []).append(step)
        return found

    def compute(self, trainer: Trainer, first: int, until: int) -> tuple[int, str] | None:
        """Compute from the state after step `first` up to a step; the first step that differs, and how."""
        ledger = self.context.ledger
        assert isinstance(ledger, ComparingLedger)
        self.context.point = self._checked_point(first)
        ledger.first_wrong, ledger.until = None, until
        with contextlib.suppress(Reached):
            trainer.run()
        return ledger.first_wrong

    def _outcome(self, step: int, end: int | None, wrong: tuple[int, str] | None) -> StepReplay:
        record, difference = self.recorded.steps[step], None
        if wrong is not None and wrong[0] <= (end or step):
            difference = wrong[1] if wrong[0] == step else f"step {wrong[0]}: {wrong[1]}"
        return StepReplay(
            self.recorded.name, step, record.get("loss"), record.get("grad_norm"), end, difference
        )

    def _checked_point(self, step: int) -> ResumePoint | None:
        return checked_point(self.points, self.recorded, step, self.context.states_dir)

    def _round(self, step: int) -> StepReplay:
        """One round of rejection sampling: it depends on no other but by the count of what was kept before."""
        assert isinstance(self.stage, RejectStage)
        sampler = RejectionSampler(self.context, self.stage, self.start.model, self.start.tokenizer)
        before = int(self.recorded.steps[step - 1]["kept"]) if step > 1 else len(sampler.first_kept())
        examples, numbers = sampler.round(step - 1)
        fields: Record = {"step": step, "kept": before + len(examples)} | numbers
        ledger = self.context.ledger
        assert isinstance(ledger, ComparingLedger)
        ledger.first_wrong, ledger.until = None, step
        with contextlib.suppress(Reached):
            ledger.append("step", **fields)
        return self._outcome(step, None, ledger.first_wrong)


def replay_context(
    run: RecordedRun,
    recorded: RecordedStage,
    choice: DeviceChoice,
    tokenizer: Tokenizer,
    resample: bool = False,
    progress: Progress | None = None,
) -> ReplayContext:
    """What a stage is given to be computed again; whoever asks for it closes its verifiers."""
    held, leaves = HeldLeaves(), run.run_dir / "states" / recorded.name / "leaves.jsonl"
    return ReplayContext(
        recipe=run.recipe,
        stage=recorded.name,
        run_dir=run.run_dir,
        ledger=ComparingLedger(recorded, held, LeavesFile(leaves)),
        samples=SilentLedger(0),
        timings=SilentTimings(),
        progress=progress or SilentProgress(),
        verifiers=VerifierPool(),
        device=choice.device,
        dtype=choice.dtype,
        compile=compile_in(recorded.session.get("lane"), run.recipe),
        examine=lambda *_: {},
        readings=run_readings(run.run_dir),
        recorded=recorded,
        tokenizer=tokenizer,
        resample=resample,
        held=held,
    )


def checked_start(run: RecordedRun, recorded: RecordedStage, choice: DeviceChoice) -> Start:
    """What a stage began with. RunError where other files lie there now."""
    start = find_start(run.recipe, run.run_dir, recorded.name, choice.device)
    named = {parent["sha256"] for parent in recorded.started.get("parents") or []}
    if any(parent["sha256"] not in named for parent in start.parents):
        raise RunError(
            f"stage {recorded.name} began with other files than lie there now (line "
            f"{recorded.started['line']} of the ledger): they were changed, or the run was half copied"
        )
    return start


def checked_point(
    points: Sequence[ResumePoint], recorded: RecordedStage, step: int, states_dir: Path
) -> ResumePoint | None:
    """The state that was kept after a step, held to the hash in the ledger; None where none was, as after step 0."""
    point = next((point for point in points if point.step == step), None)
    if point is None or point.directory is None:
        return None
    leaves = leaves_of(load_tensors(point.directory / "state.safetensors")[0])
    if root_of(leaves) != recorded.steps[step].get("state"):
        written = LeavesFile(states_dir / "leaves.jsonl").read().get(step, {})
        raise RunError(
            f"{point.directory} is not the state that the ledger has after step {step}: "
            f"{first_difference(written, leaves)} was changed; restore the run from a copy"
        )
    return point


def session_choice(run: RecordedRun, recorded: RecordedStage) -> DeviceChoice:
    """The device and dtype of the session that computed a stage, with its threads. RunError where they can't be had."""
    session = recorded.session
    if (processes := session.get("processes", 1)) != world().size:
        raise RunError(
            f"stage {recorded.name} was computed by {processes} processes and here are {world().size}, whose sums are "
            f"rounded otherwise: replay it with `torchrun --nproc-per-node {processes} -m clearseek ledger replay`"
        )
    lane, native = session.get("lane"), session.get("lane") in (None, NATIVE.name)
    recipe = run.recipe.model_copy(update={"dtype": session["dtype"]})
    choice = enter_lane(None if native else lane, str(session["device"]) if native else "auto", recipe)
    choice = replace(choice, device=own_device(choice.device))
    torch.set_num_threads(int(session["threads"]))
    told = (session.get("machine") or {}).get("capability")
    if told not in (None, capability()) and choice.device.type == "cpu":
        raise RunError(
            f"stage {recorded.name} was computed with {told}, and torch computes with {capability()} here: set "
            f"ATEN_CPU_CAPABILITY={told.lower()}, or replay on a machine like the run's"
        )
    return choice
