"""`clearseek ledger replay`: steps or evaluations of a run computed again and compared with its ledger."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clearseek.cli.options import RunPath, is_first_rank, json_option, print_json
from clearseek.config.errors import RunError

if TYPE_CHECKING:
    from clearseek.recipe.recorded import RecordedRun
    from clearseek.recipe.replay import StepReplay
    from clearseek.recipe.replay_evaluation import EvaluationReplay

EPILOG = """\b
Examples:
  clearseek ledger replay runs/r1-mini --stage rl-all --step 7
  clearseek ledger replay runs/r1-mini --sample 50 --seed 3
  clearseek ledger replay runs/r1-mini --stage rl-all --step 7 --resample
  clearseek ledger replay runs/r1-mini --stage rl-all --evaluation

\b
A step is computed again from the nearest state that the run kept, in the run's
lane; loss, gradient norm and every other number must be the same to the last
bit, and so must the hash of all weights and of the optimiser, after this step
or the next one whose hash is in the ledger. Steps of reinforcement learning
learn from the completions that the run stored; --resample samples them again
and compares those too. --evaluation examines the models again: of one stage, or
without --stage of all, and every number of their records must come out the
same, and so must the hash of all answers. What N processes computed, N replay:
start it with torchrun --nproc-per-node N -m clearseek ledger replay. Nothing is
written into the run; --witness signs the outcome with your key and leaves it
beside, where `ledger verify` counts it.

Exit codes: 0 all the same, 1 one differs or can't be replayed, 2 no such step
or evaluation."""


@click.command("replay", epilog=EPILOG)
@click.argument("run", type=RunPath())
@click.option("--step", type=click.IntRange(min=1), help="The step to compute again.")
@click.option("--stage", help="The stage that it belongs to, or whose evaluations are meant.")
@click.option(
    "--sample", "count", type=click.IntRange(min=1), help="So many random steps, of every stage its share."
)
@click.option("--evaluation", is_flag=True, help="Examine the models again: of --stage, or of all stages.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws them.")
@click.option("--resample", is_flag=True, help="Sample completions of reinforcement learning again too.")
@click.option("--witness", is_flag=True, help="Sign what came out and leave it in RUN.witness/.")
@json_option
def command(
    run: Path,
    step: int | None,
    stage: str | None,
    count: int | None,
    evaluation: bool,
    seed: int,
    resample: bool,
    witness: bool,
    as_json: bool,
) -> None:
    """Compute steps or evaluations of a run again and compare them with its ledger, bit by bit.

    RUN is the directory of a run.
    """
    if [step is not None, count is not None, evaluation].count(True) != 1:
        raise click.UsageError("give one of --step, --sample and --evaluation")
    if stage is not None and count is not None:
        raise click.UsageError("--stage belongs to --step or --evaluation")
    if resample and evaluation:
        raise click.UsageError("--resample belongs to --step or --sample")
    from clearseek.recipe.recorded import read_run

    recorded = read_run(run)
    if evaluation:
        _replay_evaluations(recorded, stage, witness, as_json)
    else:
        wanted = [recorded.find_step(step, stage)] if step is not None else recorded.draw(count or 0, seed)
        _replay_steps(recorded, wanted, count, resample, witness, as_json)


def _replay_steps(
    recorded: "RecordedRun",
    wanted: list[tuple[str, int]],
    count: int | None,
    resample: bool,
    witness: bool,
    as_json: bool,
) -> None:
    _enter_lane(recorded, {name for name, _ in wanted})
    if count is not None and not as_json and is_first_rank():
        click.echo(_drawn(recorded, wanted))
    from clearseek.recipe.replay import replay_steps

    done = []
    for one in replay_steps(recorded, wanted, resample):
        done.append(one)
        if not as_json and is_first_rank():
            click.echo(f"{_place(one)}: {_numbers(one)}: {_verdict(one)}")
    _end(recorded, done, "steps", witness, as_json)


def _replay_evaluations(recorded: "RecordedRun", stage: str | None, witness: bool, as_json: bool) -> None:
    names = recorded.examined(stage)
    _enter_lane(recorded, set(names))
    from clearseek.recipe.replay_evaluation import replay_evaluations

    done = []
    for one in replay_evaluations(recorded, names):
        done.append(one)
        if not as_json and is_first_rank():
            click.echo(f"{_place(one)}: {_scores(one)}: {_verdict(one)}")
    _end(recorded, done, "evaluations", witness, as_json)


def _enter_lane(recorded: "RecordedRun", stages: set[str]) -> None:
    from clearseek.recipe.recorded import enter_lane_of

    if reason := enter_lane_of(recorded, stages):
        click.echo(f"note: {reason}; a difference proves nothing", err=True)


def _drawn(recorded: "RecordedRun", wanted: list[tuple[str, int]]) -> str:
    """How many steps of each stage that has some."""
    names = [name for name, _ in wanted]
    stages = [stage for stage in recorded.stages.values() if stage.steps]
    return "steps drawn: " + ", ".join(
        f"{stage.name} {names.count(stage.name)} of {len(stage.steps)}" for stage in stages
    )


def _sign(recorded: "RecordedRun", done: "Sequence[StepReplay | EvaluationReplay]", what: str) -> None:
    from clearseek import __version__
    from clearseek.ledger.lanes import conditions
    from clearseek.ledger.witness import write_witness

    facts = {
        "outcome": "same" if all(one.difference is None for one in done) else "differs",
        "first_difference": next((_difference(one) for one in done if one.difference), None),
        what: [[one.stage, one.step] for one in done],
        "lane": recorded.stages[done[0].stage].session.get("lane"),
        "machine": conditions(),
        "clearseek": __version__,
    }
    click.echo(f"signed in {write_witness(recorded.run_dir, facts)}", err=True)


def _place(one: "StepReplay | EvaluationReplay") -> str:
    """Which step of which stage, or when the stage was examined: at its end or on the way."""
    return f"{one.stage} {one.step}" if one.step > 0 else one.stage


def _numbers(one: "StepReplay") -> str:
    numbers = [
        f"{name} {value:.6g}"
        for name, value in (("loss", one.loss), ("gradient norm", one.grad_norm))
        if value is not None
    ]
    if one.state_step is not None:
        numbers.append(f"state after step {one.state_step}")
    return ", ".join(numbers) or "all numbers"


def _scores(one: "EvaluationReplay") -> str:
    scores = [f"bits per byte {bits:.6g} on {name}" for name, bits in (one.bits_per_byte or {}).items()]
    if one.pass_at_1 is not None:
        answers = "every answer" if one.every_answer else "counts alone, no hash of the answers is on record"
        scores = [f"pass@1 {one.pass_at_1:.1%}", answers, *scores]
    return ", ".join(scores) or "all numbers"


def _verdict(one: "StepReplay | EvaluationReplay") -> str:
    return "the same" if one.difference is None else f"DIFFERS: {one.difference}"


def _difference(one: "StepReplay | EvaluationReplay") -> str:
    return f"{_place(one)}: {one.difference}"


def _end(
    recorded: "RecordedRun",
    done: "Sequence[StepReplay | EvaluationReplay]",
    what: str,
    witness: bool,
    as_json: bool,
) -> None:
    """Print, sign and say what came out, on the first rank. RunError where something differs."""
    if not is_first_rank():
        return
    if as_json:
        print_json([vars(one) for one in done])
    if witness:
        _sign(recorded, done, what)
    wrong = [one for one in done if one.difference is not None]
    if wrong:
        raise RunError(
            f"{recorded.run_dir}: {len(wrong)} of {len(done)} {what} come out otherwise; the first is "
            f"{_difference(wrong[0])}"
        )
    if not as_json:
        click.echo(f"{len(done)} {what} computed again, every bit the same")
