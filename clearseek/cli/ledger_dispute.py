"""`clearseek ledger dispute`: the first step and tensor where two runs part."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clearseek.cli.options import RunPath
from clearseek.config.errors import InputError, RunError

if TYPE_CHECKING:
    from clearseek.recipe.dispute import Parting
    from clearseek.recipe.recorded import RecordedRun

EPILOG = """\b
Examples:
  clearseek ledger dispute runs/r1-mini theirs/r1-mini
  clearseek ledger dispute runs/r1-mini theirs/r1-mini --no-replay

\b
The ledgers say where numbers and hashes of states first differ. That stretch
is then computed again in both runs, from the last state that they share: so
the very step and tensor are found, and whose ledger says what is computed.
Runs of different recipes part by their recipes; the lines that differ are shown.

Exit codes: 0 the runs are the same, 1 they part, 2 the input is wrong."""


@click.command("dispute", epilog=EPILOG)
@click.argument("first", type=RunPath())
@click.argument("second", type=RunPath())
@click.option(
    "--replay/--no-replay", default=True, help="Compute the stretch where they part again.  [default: do]"
)
def command(first: Path, second: Path, replay: bool) -> None:
    """Find the first step and tensor where two runs part.

    FIRST and SECOND are directories of runs.
    """
    from clearseek.recipe import dispute
    from clearseek.recipe.recorded import read_run

    runs = read_run(first, False), read_run(second, False)
    for what, lines in (
        ("recipes differ", dispute.differences_of_recipes(*runs)),
        ("conditions differ", dispute.differences_of_machines(*runs)),
    ):
        for line in lines:
            click.echo(f"{what}: {line}")
    parting = dispute.first_parting(*runs)
    if parting is None:
        click.echo("the ledgers say the same in every stage")
        return
    click.echo(f"first difference: stage {parting.stage}, {parting.what}")
    if parting.step is not None:
        _tell_states(runs, parting, replay)
    raise RunError(f"{first} and {second} part in stage {parting.stage}: {parting.what}")


def _tell_states(runs: tuple["RecordedRun", "RecordedRun"], parting: "Parting", replay: bool) -> None:
    from clearseek.recipe import dispute

    if parting.other_state is not None:
        where = f"after step {parting.same_state}" if parting.same_state else "at the start"
        click.echo(f"states: the same {where}, others after step {parting.other_state}")
        if tensor := dispute.written_tensor(*runs, parting):
            click.echo(f"first tensor that both wrote otherwise then: {tensor}")
    if replay:
        _tell_replay(runs, parting)


def _tell_replay(runs: tuple["RecordedRun", "RecordedRun"], parting: "Parting") -> None:
    from clearseek.recipe import dispute

    held = []
    for run in runs:
        step = parting.other_state or parting.step
        if step not in run.stages[parting.stage].steps:
            click.echo(f"{run.run_dir}: has no step {step} to compute again")
            return
        try:
            difference, states = dispute.compute_again(run.run_dir, parting)
        except (InputError, RunError) as error:
            click.echo(f"{run.run_dir}: can't be computed again ({error})")
            return
        held.append(states)
        verdict = "comes out as its ledger says" if difference is None else f"does not: {difference}"
        click.echo(f"{run.run_dir}: computed again, {verdict}")
    found = dispute.first_tensor(*held)
    if found is not None:
        click.echo(f"computed again, the states first differ after step {found[0]}, in {found[1]}")
    else:
        click.echo("computed again, both have the same states: one of the ledgers was not made by its run")
