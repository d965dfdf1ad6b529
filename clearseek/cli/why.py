"""`clearseek why`: what an answer owes to a document, a source or a problem."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from clearseek.cli.options import RunPath, columns, json_option, print_json

if TYPE_CHECKING:
    from clearseek.recipe.why import Change, Compared, Weighed

EPILOG = """\b
Examples:
  clearseek why runs/r1-mini "What is 17+25?" --without cold-start/0
  clearseek why runs/r1-mini "What is 17+25?" --without 3f1c09ab --control
  clearseek why runs/r1-mini "What is 17+25?" --without rl-all/problems --json
  clearseek why runs/docs "The sea is" --plain --answer " grey" --without base/0

\b
Stages that have read it are computed again from the last state before its first
use, with its places in the rows left empty (a problem is not asked), and all
later stages on top, in the run's lane. Where models differ, reinforcement
learning and rejection sampling sample anew. RUN is never written to; what is
computed goes into a temporary folder. docs/ledger.md says more.

Exit codes: 0 done, 1 it can't be computed again, 2 no such run, source or
document, 130 interrupted (nothing is left)."""


@click.command("why", epilog=EPILOG)
@click.argument("run", type=RunPath())
@click.argument("prompt")
@click.option(
    "--without",
    required=True,
    metavar="WHAT",
    help="A source as STAGE/NUMBER, the problems a stage asks as STAGE/problems, or the hash of a document or a "
    "problem (8 digits do).",
)
@click.option("--to", metavar="STAGE", help="Ask this stage's model.  [default: the run's final one]")
@click.option("--stage", metavar="STAGE", help="Quick: compute this stage alone, and ask its model.")
@click.option("--answer", help="The completion to weigh, thought and all.  [default: the likeliest]")
@click.option("--plain", is_flag=True, help="The prompt is a text to go on with, not a question.")
@click.option(
    "--control", is_flag=True, help="The same without something else of the same size: takes twice the time."
)
@click.option(
    "--keep", type=click.Path(path_type=Path), metavar="DIRECTORY", help="Keep the models computed."
)
@json_option
def command(
    run: Path,
    prompt: str,
    without: str,
    to: str | None,
    stage: str | None,
    answer: str | None,
    plain: bool,
    control: bool,
    keep: Path | None,
    as_json: bool,
) -> None:
    """Show what an answer owes to a document, a source or a problem.

    RUN is the directory of a finished run. It is computed again without it, as
    far as the model that is asked, and the change of the answer's probability
    is shown.
    """
    if to is not None and stage is not None:
        raise click.UsageError("--stage is the stage that is asked: leave --to out")
    from clearseek.cli.progress import open_progress
    from clearseek.recipe.recorded import enter_lane_of, read_run
    from clearseek.recipe.without import computed_again, find_target, find_without

    recorded = read_run(run)
    target = find_target(recorded, to, stage)
    left_out = find_without(recorded, without, target)
    if reason := enter_lane_of(recorded, computed_again(recorded.recipe, left_out, target)):
        click.echo(f"note: {reason}", err=True)
    from clearseek.recipe.why import why

    progress = open_progress()
    try:
        found = why(recorded, prompt, left_out, target, answer, plain, control, keep, progress)
    finally:
        progress.end()
    if as_json:
        print_json(found.to_dict())
    else:
        click.echo("\n".join(_lines(found)))


def _lines(found: "Change") -> list[str]:
    lines = [f"left out: {found.left_out}", *_where(found), *_computed(found)]
    lines += ["", f"answer of {found.stage} ({found.tokens} tokens): {found.answer}"]
    others = [("without", found.compared)]
    if found.control is not None:
        others.append(("control", found.control.compared))
    rows = [["", "log-probability", "per token", "as likely"], _row("with", found.with_it, "")]
    rows += [_row(name, one.without, _times(one)) for name, one in others]
    lines += [columns(rows), *_verdict(found)]
    lines += ["", f"likeliest answer with:    {found.with_it.likeliest}"]
    lines += [f"likeliest answer without: {found.compared.without.likeliest}"]
    return lines + ([f"kept in {found.kept}"] if found.kept else [])


def _where(found: "Change") -> list[str]:
    lines = []
    for seen in found.seen:
        what = "asked" if seen.place.endswith("/problems") else "documents"
        tokens = "" if seen.tokens is None else f", {seen.tokens:,} tokens seen"
        read = "by no step" if seen.first_step is None else f"first by step {seen.first_step}"
        lines.append(f"  {seen.place}: {seen.count:,} {what}{tokens}, {read}")
    return lines


def _computed(found: "Change") -> list[str]:
    if not found.again:
        return ["nothing had to be computed again: no step has used it"]
    lines = ["computed again:"]
    for one in found.again:
        begun = f"from the state after step {one.begun_at}" if one.begun_at else "from its start"
        anew = ", sampled anew" if one.sampled_anew else ""
        end = "" if one.is_other else "; it came out the same to the last bit"
        lines.append(f"  {one.stage} ({one.kind}) {begun} to step {one.steps}{anew}{end}")
    return lines


def _row(name: str, one: "Weighed", times: str) -> list[str]:
    return [name, f"{one.log_prob:.4f}", f"{one.log_prob_per_token:.4f}", times]


def _times(one: "Compared") -> str:
    if one.is_same:
        return "the same model"
    return f"exp({one.change:.1f}) times" if one.times is None else f"{one.times:.4g} times"


def _verdict(found: "Change") -> list[str]:
    """In words: what changed, and whether chance would have done as much."""
    if found.compared.is_same:
        return [
            f"without it the model of {found.stage} is the same to the last bit: the answer owes it nothing"
        ]
    lines = [f"without it the answer is {_times(found.compared)} as likely"]
    if found.control is not None:
        chance = abs(found.control.compared.change)
        held = f"the change is {abs(found.compared.change) / chance:.3g} times the control's"
        lines.append(f"control, {found.control.told}: {held if chance else 'it changed nothing'}")
    elif any(one.sampled_anew for one in found.again):
        lines.append(
            "stages sampled anew, so part of the change is chance: --control shows how much chance does"
        )
    return lines
