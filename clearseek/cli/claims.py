"""`clearseek claims`: the figures of documents, held to the records that they come from."""

from pathlib import Path

import click

from clearseek.cli.options import json_option, print_json
from clearseek.config.errors import InputError, RunError

EPILOG = """\b
Examples:
  clearseek claims check
  clearseek claims check runs/r1-mini-papers/README.md
  clearseek claims record r1-mini-seed-1 runs/r1-mini

Exit codes: 0 done, 1 a figure doesn't hold, 2 the input is wrong."""

CHECK_EPILOG = """\b
Without FILE: README*.md, docs/*.md and the cards of models that come along.
A number with a unit of measuring needs a record, said behind its block:
  <!-- claim: RECORD PATH PATH ... -->   a path for each figure, in order
  <!-- shown: RECORD PATH -->            a fenced block, as a command printed it
  <!-- logged: HEADING -->               figures of that entry of docs/log.md
  <!-- not measured: WHY -->             a limit, a size, a figure of others
RECORD is a file in docs/records, or a .json file beside the document. PATH is
keys joined by dots; a.{b,c}.d is two, a/b a quotient, RECORD:PATH one of
another record.

Exit codes: 0 all hold, 1 some don't, each on a line, 2 no such file."""

RECORD_EPILOG = """\b
Examples:
  clearseek claims record r1-mini-seed-1 runs/r1-mini
  clearseek claims record bench-trace out.json --command "make bench-trace"

Exit codes: 0 written, 1 the run doesn't verify, 2 the input is wrong."""


@click.group("claims", epilog=EPILOG)
def command() -> None:
    """Hold the figures of documents to the records that they come from."""


@command.command("check", epilog=CHECK_EPILOG)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def check(files: tuple[Path, ...], as_json: bool) -> None:
    """Check every measured figure of Markdown documents."""
    from clearseek.claims.check import check_documents, documents_of

    documents = list(files) or documents_of(Path())
    if not documents:
        raise InputError("there are no documents here; give some, or call it in clearseek's checkout")
    found = check_documents(documents)
    faults = [str(fault) for fault in found.faults]
    if as_json:
        print_json(
            {"documents": found.documents, "figures": found.figures, "shown": found.shown, "faults": faults}
        )
    else:
        for line in faults:
            click.echo(line)
        click.echo(
            f"{found.documents} documents: {found.figures} figures and {found.shown} printed tables agree with their "
            "records"
        )
    if faults:
        raise RunError(
            f"{len(faults)} {'block has' if len(faults) == 1 else 'blocks have'} figures that don't hold"
        )


@command.command("record", epilog=RECORD_EPILOG)
@click.argument("name")
@click.argument("source", metavar="RUN|FILE", type=click.Path(exists=True, path_type=Path))
@click.option("--command", "typed", help="What printed FILE, as it is typed.")
@click.option("--date", help="The day it was measured, default: today.")
def record(name: str, source: Path, typed: str | None, date: str | None) -> None:
    """Write docs/records/NAME.json from a sealed run or a benchmark's output."""
    from clearseek.claims.records import record_output, record_run, write_record

    if source.is_dir():
        from clearseek.cli.run import printed_table

        made = record_run(source, printed_table)
    elif typed is None:
        raise InputError("--command has to say what printed the file, as in --command 'make bench-trace'")
    else:
        made = record_output(source, typed, date)
    click.echo(str(write_record(name, made)))
