"""`clearseek ledger replay`: steps of a run computed again and compared with its ledger."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clearseek.cli.options import RunPath, is_first_rank, json_option, print_json
from clearseek.config.errors import RunError

if TYPE_CHECKING:
    from clearseek.recipe.recorded import RecordedRun
    from clearseek.recipe.replay import StepReplay

EPILOG = """\b
Examples:
  clearseek ledger replay runs/r1-mini --stage rl-all --step 7
  clearseek ledger replay runs/r1-mini --sample 50 --seed 3
  clearseek ledger replay runs/r1-mini --stage rl-all --step 7 --resample

\b
A step is computed again from the nearest state that the run kept, in the run's
lane; loss, gradient norm and every other number must be the same to the last
bit, and so must the hash of all weights and of the optimiser, after this step
or the next one whose hash is in the ledger. Steps of reinforcement learning
learn from the completions that the run stored; --resample samples them again
and compares those too. What N processes computed, N replay: start it with
torchrun --nproc-per-node N -m clearseek ledger replay. Nothing is written into the run; --witness signs the
outcome with your key and leaves it beside, where `ledger verify` counts it.

Exit codes: 0 all the same, 1 one differs or can't be replayed, 2 no such step."""


@click.command("replay", epilog=EPILOG)
@click.argument("run", type=RunPath())
@click.option("--step", type=click.IntRange(min=1), help="The step to compute again.")
@click.option("--stage", help="The stage that it belongs to.")
@click.option(
    "--sample", "count", type=click.IntRange(min=1), help="So many random steps, of every stage its share."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Draws them.")
@click.option("--resample", is_flag=True, help="Sample completions of reinforcement learning again too.")
@click.option("--witness", is_flag=True, help="Sign what came out and leave it in RUN.witness/.")
@json_option
def command(
    run: Path,
    step: int | None,
    stage: str | None,
    count: int | None,
    seed: int,
    resample: bool,
    witness: bool,
    as_json: bool,
) -> None:
    """Compute steps of a run again and compare them with its ledger, bit by bit.

    RUN is the directory of a run.
    """
    if (step is None) == (count is None):
        raise click.UsageError("give one of --step and --sample")
    if stage is not None and step is None:
        raise click.UsageError("--stage belongs to --step")
    from clearseek.recipe.recorded import enter_lane_of, read_run

    recorded = read_run(run)
    wanted = [recorded.find_step(step, stage)] if step is not None else recorded.draw(count or 0, seed)
    if reason := enter_lane_of(recorded, {name for name, _ in wanted}):
        click.echo(f"note: {reason}; a difference proves nothing", err=True)
    if count is not None and not as_json and is_first_rank():
        click.echo(_drawn(recorded, wanted))
    from clearseek.recipe.replay import replay_steps

    done = []
    for one in replay_steps(recorded, wanted, resample):
        done.append(one)
        if not as_json and is_first_rank():
            click.echo(_line(one))
    if not is_first_rank():
        return
    if as_json:
        print_json([vars(one) for one in done])
    if witness:
        _sign(run, recorded, done)
    _end(run, done, as_json)


def _drawn(recorded: "RecordedRun", wanted: list[tuple[str, int]]) -> str:
    """How many steps of each stage that has some."""
    names = [name for name, _ in wanted]
    stages = [stage for stage in recorded.stages.values() if stage.steps]
    return "steps drawn: " + ", ".join(
        f"{stage.name} {names.count(stage.name)} of {len(stage.steps)}" for stage in stages
    )


def _sign(run: Path, recorded: "RecordedRun", done: list["StepReplay"]) -> None:
    from clearseek import __version__
    from clearseek.ledger.lanes import conditions
    from clearseek.ledger.witness import write_witness

    facts = {
        "outcome": "same" if all(one.difference is None for one in done) else "differs",
        "first_difference": next(
            (f"{one.stage} {one.step}: {one.difference}" for one in done if one.difference), None
        ),
        "steps": [[one.stage, one.step] for one in done],
        "lane": recorded.stages[done[0].stage].session.get("lane"),
        "machine": conditions(),
        "clearseek": __version__,
    }
    click.echo(f"signed in {write_witness(run, facts)}", err=True)


def _line(one: "StepReplay") -> str:
    numbers = [
        f"{name} {value:.6g}"
        for name, value in (("loss", one.loss), ("gradient norm", one.grad_norm))
        if value is not None
    ]
    if one.state_step is not None:
        numbers.append(f"state after step {one.state_step}")
    verdict = "the same" if one.difference is None else f"DIFFERS: {one.difference}"
    return f"{one.stage} {one.step}: {', '.join(numbers) or 'all numbers'}: {verdict}"


def _end(run: Path, done: list["StepReplay"], as_json: bool) -> None:
    wrong = [one for one in done if one.difference is not None]
    if wrong:
        first = f"{wrong[0].stage} {wrong[0].step}: {wrong[0].difference}"
        raise RunError(f"{run}: {len(wrong)} of {len(done)} steps come out otherwise; the first is {first}")
    if not as_json:
        click.echo(f"{len(done)} steps computed again, every bit the same")
