"""Evaluates a run's models again, as the run did, and compares what comes out with its `eval` records bit by bit.

The model that a stage left, or that an `eval` stage began with, lies in the run. What was examined between two steps is
computed again from the nearest state that was kept before it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from clearseek.config.errors import RunError
from clearseek.config.progress import Progress
from clearseek.config.recipe import EvalStage, StageBase, TrainStage
from clearseek.eval.examine import Examiner
from clearseek.model.checkpoint import load_model
from clearseek.model.decoder import Decoder
from clearseek.recipe.recorded import Record, RecordedRun, RecordedStage
from clearseek.recipe.replay import StageReplay, checked_start, replay_context, session_choice
from clearseek.recipe.replay_context import (
    ComparingLedger,
    Reached,
    ReplayContext,
    check_hash,
    differing_field,
)
from clearseek.recipe.stages import Start, checkpoint_path, examine_midway, examine_only, examine_trained
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.parallel import joined_world, own_device, roll_out_together


@dataclass(frozen=True)
class EvaluationReplay:
    """One evaluation computed again; `difference` names the first field that is another, None: all is the same.

    `step` is the record's: −1 for the end of the stage, 0 for a stage that does nothing else.
    """

    stage: str
    step: int
    pass_at_1: float | None
    bits_per_byte: dict[str, float] | None
    every_answer: bool  # whether the record holds the hash of all answers; those of older versions don't
    difference: str | None


def replay_evaluations(
    run: RecordedRun, stages: Sequence[str], progress: Progress | None = None
) -> Iterator[EvaluationReplay]:
    """Compute every evaluation of some stages again, stage by stage; nothing is written.

    Needs as many processes as the run had; the first compares. RunError for what can't be computed again.
    """
    device = str(run.stage(stages[0]).session["device"])
    with joined_world(own_device(torch.device(device))):
        for name in stages:
            yield from _of_stage(run, run.stage(name), progress)


def _of_stage(
    run: RecordedRun, recorded: RecordedStage, progress: Progress | None
) -> Iterator[EvaluationReplay]:
    stage = run.recipe.stages[recorded.name]
    if isinstance(stage, StageBase) and stage.engine is not None:
        raise RunError(
            f"stage {recorded.name} was examined through vLLM, whose bits nobody can promise: only evaluations by our "
            "own engine are computed again"
        )
    steps = [int(record["step"]) for record in recorded.evaluations]
    examined: dict[int, Record] = {}
    wrong: dict[int, str] = {}
    midway = [step for step in steps if step > 0]
    if midway and isinstance(stage, TrainStage):
        examined, wrong = _midway(run, recorded, midway, progress)
    if len(midway) < len(steps) and isinstance(stage, TrainStage | EvalStage):
        examined |= _at_the_end(run, recorded, stage, progress)
    for step, record in zip(steps, recorded.evaluations, strict=True):
        difference = wrong.get(step)
        if difference is None:
            difference = _difference(record, examined.get(step))
        yield EvaluationReplay(
            recorded.name,
            step,
            record.get("pass_at_1"),
            record.get("bits_per_byte"),
            "answers_sha256" in record,
            difference,
        )


def _difference(record: Record, now: Record | None) -> str | None:
    if now is None:
        return "by the recipe nothing is examined there"
    different = differing_field(record, now)
    return None if different is None else "{} was {} and is {}".format(*different)


def _at_the_end(
    run: RecordedRun, recorded: RecordedStage, stage: TrainStage | EvalStage, progress: Progress | None
) -> dict[int, Record]:
    """What comes out of a finished stage's model, by the step of the record."""
    choice = session_choice(run, recorded)
    if isinstance(stage, EvalStage):
        start = checked_start(run, recorded, choice)
    else:
        start = _left(run, recorded, choice.device)
    context = replay_context(run, recorded, choice, start.tokenizer, resample=True, progress=progress)
    try:
        if isinstance(stage, EvalStage):
            examine_only(context, stage, start)
        else:
            examine_trained(context, stage, start, lambda: _examiner(context))
        return _held(context)
    finally:
        context.verifiers.close()


def _left(run: RecordedRun, recorded: RecordedStage, device: torch.device) -> Start:
    """The model that a stage left, held to the hashes in the ledger."""
    finished = recorded.finished or {}
    for named in finished.get("outputs") or []:
        check_hash(run.run_dir / named["path"], named["sha256"], finished["line"])
    directory = checkpoint_path(run.run_dir, recorded.name)
    return Start(load_model(directory).to(device), Tokenizer.load(directory), [])


def _midway(
    run: RecordedRun, recorded: RecordedStage, wanted: Sequence[int], progress: Progress | None
) -> tuple[dict[int, Record], dict[int, str]]:
    """What comes out after some steps; and of those that were not come to, which step before them differs."""
    stage = StageReplay(run, recorded.name, progress=progress)
    try:
        examiner = _examiner(stage.context)
        # training learns from the rollouts that were kept; what examines has to sample
        sampling = replace(stage.context, resample=True)
        trainer, wrong = stage.trainer(), dict[int, str]()
        for first, steps in stage.by_point(wanted).items():
            last = steps[-1]

            def examine(model: Decoder, tokenizer: Tokenizer, step: int, last: int = last) -> dict[str, Any]:
                numbers = {}
                if step in wanted:
                    numbers = examine_midway(sampling, examiner, model, tokenizer, step)
                if step == last:
                    raise Reached
                return numbers

            stage.context.examine = examine
            found = stage.compute(trainer, first, until=last + 1)
            if found is not None:
                wrong |= {step: f"step {found[0]}: {found[1]}" for step in steps if step >= found[0]}
        return _held(stage.context), wrong
    finally:
        stage.close()


def _examiner(context: ReplayContext) -> Examiner:
    return Examiner(context.recipe.evaluation, context.recipe.seed, context.verifiers, roll_out_together)


def _held(context: ReplayContext) -> dict[int, Record]:
    assert isinstance(context.ledger, ComparingLedger)
    return context.ledger.examined
