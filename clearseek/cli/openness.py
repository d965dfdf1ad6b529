"""`clearseek openness`: the class that a run reaches, and what is missing for the next."""

from pathlib import Path
from typing import Any

import click

from clearseek.cli.options import RunPath, json_option, print_columns, print_json

EPILOG = """\b
Examples:
  clearseek openness runs/r1-mini
  clearseek openness runs/r1-mini --papers release --json

\b
The Model Openness Framework counts 17 components, each with an open licence;
a component whose file isn't there, or isn't what release.note names, is not
claimed. OSAID is the Open Source AI Definition 1.0.

Exit codes: 0 told, whichever the class; 1 something was changed; 2 no such run."""


@click.command("openness", epilog=EPILOG)
@click.argument("run", type=RunPath())
@click.option(
    "--papers",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Where its papers lie.  [default: RUN-papers]",
)
@click.option("--key", help="The key that must have sealed the run: NAME+ID+KEY.")
@json_option
def command(run: Path, papers: Path | None, key: str | None, as_json: bool) -> None:
    """Say how open a run is, and what is missing for the next class.

    RUN is a run directory. Computed from the files that are there.
    """
    from clearseek.papers.facts import read_facts
    from clearseek.papers.release import openness_of, papers_beside

    found = openness_of(read_facts(run, key=key), papers or papers_beside(run))
    if as_json:
        print_json(found)
        return
    _print(found["mof"], found["osaid"])


def _print(mof: dict[str, Any], osaid: dict[str, Any]) -> None:
    rows = [["component", "class", "there", "licence"]]
    for one in mof["components"]:
        there = "yes" if one["included"] else "no" if one["required"] else "no (optional)"
        rows.append([one["name"], "I" * one["class"], there, one["licence"] or "not stated"])
    print_columns(rows)
    click.echo(f"\nModel Openness Framework: {mof['name']}")
    if mof["next"]:
        click.echo(f"missing for {mof['next']}:")
        for name, problems in mof["missing_for_next"].items():
            click.echo(f"  {name}: {'; '.join(problems)}")
    if mof["not_type_appropriate"]:
        click.echo(
            f"open, but by a licence made for something else: {', '.join(mof['not_type_appropriate'])}"
        )
    click.echo(
        f"Open Source AI Definition {osaid['version']}: {'met' if osaid['is_open_source_ai'] else 'not met'}"
    )
    for check in osaid["checks"]:
        for line in check["lacking"]:
            click.echo(f"  {check['requirement']}: {line}")
