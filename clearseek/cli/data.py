"""`clearseek data`: what went into a run, to be looked at by whoever asks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clearseek.cli.options import RunPath, inherited_words, json_option, print_columns, print_json

if TYPE_CHECKING:
    from clearseek.ledger.record import RunRecord
    from clearseek.ledger.sources import SourceRecord

EPILOG = """\b
Examples:
  clearseek data runs/r1-mini
  clearseek data runs/r1-mini --source pretrain/0 --sample 5
  clearseek data runs/r1-mini --grep "다섯 시간"
  clearseek data runs/r1-mini --html data.html --language ko

\b
A licence that nobody stated is "not stated". Personal data is found by rule
(docs/data.md says by which), evaluation items by their wording.

Exit codes: 0 done, 1 the run is damaged, 2 no such run, source or text."""


class _ShowsByDefault(click.Group):
    """`clearseek data RUN` is `clearseek data show RUN`; whoever changes something says so by its own word."""

    def parse_args(self, context: click.Context, arguments: list[str]) -> list[str]:
        """Put `show` in front unless another command is named."""
        named = arguments and arguments[0] in self.commands
        return super().parse_args(context, arguments if named else ["show", *arguments])


@click.group("data", cls=_ShowsByDefault)
def command() -> None:
    """Show what went into a run: sources, licences, languages, filters."""


@command.command("show", epilog=EPILOG)
@click.argument("run", type=RunPath())
@click.option("--source", help="One source: STAGE/NUMBER, a stage's all, or a source's name.")
@click.option("--sample", type=click.IntRange(min=1), help="Show so many documents of each source.")
@click.option("--grep", help="Show documents that hold this text, and how many do.")
@click.option(
    "--html", type=click.Path(dir_okay=False, path_type=Path), help="Write a page to browse instead."
)
@click.option(
    "--language", type=click.Choice(["en", "ko", "zh"]), default="en", show_default=True, help="Of the page."
)
@json_option
def show(
    run: Path,
    source: str | None,
    sample: int | None,
    grep: str | None,
    html: Path | None,
    language: str,
    as_json: bool,
) -> None:
    """Show what went into a run: sources, licences, languages, filters.

    RUN is a run directory; `data RUN` is short for `data show RUN`. Documents
    are read again where the run keeps them and held to the hash in its ledger.
    """
    from clearseek.ledger.record import load_run
    from clearseek.ledger.sources import chosen_sources, data_report, sources_of
    from clearseek.trace.browse import write_data_page

    record = load_run(run)
    chosen = chosen_sources(sources_of(record), source)
    if html is not None:
        write_data_page(record, chosen, html, language)
        click.echo(str(html))
        return
    report = data_report(record, chosen)
    shown = _documents(record, chosen, sample, grep)
    if as_json:
        print_json(report | shown)
        return
    _print_table(chosen)
    for each, row in zip(chosen, report["sources"], strict=True):
        _print_filter(row, with_samples=source is not None)
        _print_findings(each, row)
    for line in inherited_words(report["inherited"]):
        click.echo(f"\n{line}")
    for teacher in report["teachers"]:
        _print_teacher(teacher)
    _print_documents(shown)


def _documents(
    record: "RunRecord", chosen: "list[SourceRecord]", sample: int | None, grep: str | None
) -> dict[str, Any]:
    """What `--sample` and `--grep` ask for, by source."""
    from dataclasses import asdict

    from clearseek.trace.browse import documents_of, matches, spread

    shown: dict[str, Any] = {}
    readable = [each for each in chosen if each.has_documents] if sample or grep is not None else []
    for each in readable:
        documents = documents_of(record, each)
        if sample:
            picked = [asdict(one) for one in spread(documents, sample)]
            shown.setdefault("documents", {})[each.id] = picked
        if grep is not None:
            count, found = matches(documents, grep, sample or 5)
            shown.setdefault("matches", {})[each.id] = {
                "documents": count,
                "shown": [asdict(one) for one in found],
            }
    return shown


def _print_table(chosen: "list[SourceRecord]") -> None:
    from clearseek.ledger.source_words import headings, table_row

    print_columns([headings(), *[table_row(each) for each in chosen]], left=len(headings()))


def _print_filter(row: dict[str, Any], with_samples: bool) -> None:
    done = row["filter"]
    if not done:
        return
    dropped = ", ".join(f"{rule} {count:,}" for rule, count in done["dropped"].items()) or "nothing"
    masked = "".join(f", masked {rule} {count:,}" for rule, count in done["masked"].items())
    click.echo(
        f"\n{row['id']}: filters left {done['rows_out']:,} of {done['rows_in']:,}; dropped: {dropped}{masked}"
    )
    for sample in row["dropped_samples"] if with_samples else ():
        click.echo(f"  {sample['rule']} ({sample['place']}): {_line(sample['text'])}")


def _print_findings(each: "SourceRecord", row: dict[str, Any]) -> None:
    from clearseek.ledger.source_words import findings

    for finding in findings(each):
        click.echo(f"{row['id']}: {finding}")


def _print_teacher(teacher: dict[str, Any]) -> None:
    from clearseek.ledger.source_words import teacher_words

    click.echo(f"\n{teacher_words(teacher)}")


def _print_documents(shown: dict[str, Any]) -> None:
    for name, documents in shown.get("documents", {}).items():
        for one in documents:
            click.echo(
                f"\n{name}, row {one['row']}{': ' if one['place'] else ''}{one['place']}\n{one['text']}"
            )
    for name, found in shown.get("matches", {}).items():
        click.echo(f"\n{name}: {found['documents']:,} documents hold it")
        for one in found["shown"]:
            click.echo(f"  row {one['row']}: {one['text']}")


def _line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 100 else f"{flat[:100]} …"


REMOVE_EPILOG = """\b
Example:
  clearseek data remove runs/r1-mini 3f1c09ab

\b
The new run lies beside the old one, which stays as it is. Its ledger is the
certificate: a `filter` record that names the document by its hash, the seal,
and the hashes of models that were trained without it. Check it with
`clearseek ledger verify` and `clearseek ledger replay`.

Exit codes: 0 done, 1 it can't be trained again, 2 no such run or document."""


@command.command("remove", epilog=REMOVE_EPILOG)
@click.argument("run", type=RunPath())
@click.argument("document")
@json_option
def remove(run: Path, document: str, as_json: bool) -> None:
    """Train again without a document, with a certificate.

    RUN is a finished run, DOCUMENT the hash of a document (its first 8 digits do).
    """
    from clearseek.recipe.recorded import enter_lane_of, read_run

    recorded = read_run(run)
    if reason := enter_lane_of(recorded, list(recorded.stages)[:1]):
        click.echo(f"note: {reason}", err=True)
    from dataclasses import asdict

    from clearseek.cli.progress import open_progress
    from clearseek.recipe.remove import remove_document

    progress = open_progress()
    try:
        found = remove_document(run, document, progress)
    finally:
        progress.end()
    if as_json:
        print_json(asdict(found))
        return
    click.echo(f"document {found.document}, read by {', '.join(found.places)}")
    click.echo(f"trained again without it: {found.run_dir}, certified in line {found.line} of its ledger")
    for stage, (before, after) in found.models.items():
        changed = (
            "the same, from before its first use" if before == after else f"{before[:16]} is now {after[:16]}"
        )
        click.echo(f"  {stage}: {changed}")
