"""`clearseek report`: write report.html and report.json again from a run's records."""

from pathlib import Path

import click

from clearseek.cli.options import RunPath, json_option, print_json

EPILOG = """\b
Example:
  clearseek report runs/r1-mini

\b
--json also prints what it wrote into report.json.

Exit codes: 0 written, 1 the records are damaged, 2 no such run."""


@click.command("report", epilog=EPILOG)
@click.argument("run", type=RunPath())
@json_option
def command(run: Path, as_json: bool) -> None:
    """Write a run's report again from its records.

    RUN is a run directory. Nothing is computed anew: the report only reads
    ledger.jsonl, timings.jsonl and samples.jsonl.
    """
    from clearseek.ledger.report import write_report

    report = write_report(run)
    if as_json:
        print_json(report)
    else:
        click.echo(f"{run / 'report.html'}\n{run / 'report.json'}")
