"""`clearseek why`: what an answer owes to a document or a source."""

import math
from pathlib import Path

import click

from clearseek.cli.options import RunPath, json_option, print_json

EPILOG = """\b
Examples:
  clearseek why runs/r1-mini "What is 17+25?" --without cold-start/0
  clearseek why runs/r1-mini "What is 17+25?" --without 3f1c09ab --json
  clearseek why runs/docs "The sea is" --plain --answer " grey" --without base/0

\b
The stage that has read it is computed again from the last state before its
first use, with its places in the rows left empty; all else stays as it was.
What is compared is the model at the end of that stage. docs/ledger.md says more.

Exit codes: 0 done, 1 it can't be computed again, 2 no such run, source or document."""


@click.command("why", epilog=EPILOG)
@click.argument("run", type=RunPath())
@click.argument("prompt")
@click.option(
    "--without",
    required=True,
    metavar="SOURCE|DOCUMENT",
    help="STAGE/NUMBER, or a document's hash (8 digits do).",
)
@click.option("--stage", help="Look for the document in what this stage has read.")
@click.option("--answer", help="The completion to weigh, thought and all.  [default: the likeliest]")
@click.option("--plain", is_flag=True, help="The prompt is a text to go on with, not a question.")
@json_option
def command(
    run: Path, prompt: str, without: str, stage: str | None, answer: str | None, plain: bool, as_json: bool
) -> None:
    """Show what an answer owes to a document or a source.

    RUN is the directory of a run. Training is computed again without it, and
    the change of the answer's probability is shown.
    """
    from clearseek.recipe.recorded import enter_lane_of, read_run

    recorded = read_run(run)
    if stages := [one.name for one in recorded.stages.values() if one.mix]:
        reason = enter_lane_of(
            recorded, [stage or without.partition("/")[0] if "/" in without else stages[0]]
        )
        if reason:
            click.echo(f"note: {reason}", err=True)
    from dataclasses import asdict

    from clearseek.recipe.why import find_without, why

    found = why(recorded, prompt, find_without(recorded, without, stage), answer, plain)
    if as_json:
        print_json(asdict(found))
        return
    change = found.log_prob_without - found.log_prob
    read = "no step read it" if found.first_step is None else f"first read by step {found.first_step}"
    click.echo(f"stage {found.stage} without {found.documents:,} documents: {read} of {found.steps}")
    click.echo(
        f"computed again from {f'the state after step {found.begun_at}' if found.begun_at else 'its start'}"
    )
    click.echo(f"answer ({found.tokens} tokens): {found.answer}")
    click.echo(f"log-probability with {found.log_prob:.4f}, without {found.log_prob_without:.4f} nats")
    click.echo(f"without it the answer is {_times(change)} as likely")
    click.echo(f"likeliest answer without: {found.answer_without}")


def _times(change: float) -> str:
    return f"{math.exp(change):.4g} times" if abs(change) < 50 else f"exp({change:.1f}) times"
