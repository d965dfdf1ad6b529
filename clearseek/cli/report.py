"""`clearseek report`: write report.html and report.json again from a run's records."""

from pathlib import Path

import click

EPILOG = """\b
Example:
  clearseek report runs/r1-mini

Exit codes: 0 written, 1 the records are damaged, 2 no such run."""


@click.command("report", epilog=EPILOG)
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
def command(run: Path) -> None:
    """Write a run's report again from its records.

    RUN is a run directory. Nothing is computed anew: the report only reads
    ledger.jsonl, timings.jsonl and samples.jsonl.
    """
    from clearseek.ledger.report import write_report

    write_report(run)
    click.echo(run / "report.html")
    click.echo(run / "report.json")
