"""`clearseek trace`: from an answer back to the documents and the steps that hold its words."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clearseek.cli.options import RunPath, inherited_words, json_option, print_json

if TYPE_CHECKING:
    from clearseek.trace.tracer import FoundDocument, FoundSpan

EPILOG = """\b
Examples:
  clearseek trace runs/r1-mini "The train arrives at noon, so it takes 3 hours."
  clearseek generate runs/r1-mini "…" | clearseek trace runs/r1-mini -
  clearseek trace runs/r1-mini answer.txt --min-tokens 5 --json
  clearseek trace runs/r1-mini --index

\b
What is found are matches: that a document holds the words of an answer doesn't
say that the answer comes from it. A token here is a word, a sign, or one
character of Chinese, Japanese, Korean or Thai. The first trace of a run builds
its index, unless --index did or the recipe's [ledger] says index = true
(docs/trace.md says where it is kept).

Exit codes: 0 done, found or not, 1 the run is damaged, 2 no such run or text."""


@click.command("trace", epilog=EPILOG)
@click.argument("run", type=RunPath())
@click.argument("text", required=False)
@click.option(
    "--min-tokens", type=click.IntRange(min=1), default=8, show_default=True, help="Shortest span shown."
)
@click.option(
    "--min-bytes", type=click.IntRange(min=1), default=1, help="Shortest span shown, in bytes of UTF-8."
)
@click.option(
    "--spans", type=click.IntRange(min=1), default=10, show_default=True, help="Spans shown, rarest first."
)
@click.option(
    "--documents", type=click.IntRange(min=1), default=3, show_default=True, help="Documents shown of each."
)
@click.option(
    "--all", "sampled", is_flag=True, help="Also search answers that were sampled but never trained on."
)
@click.option(
    "--index", is_flag=True, help="Build the index, with --all of those answers too; search nothing."
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    run: Path,
    text: str | None,
    min_tokens: int,
    min_bytes: int,
    spans: int,
    documents: int,
    sampled: bool,
    index: bool,
    as_json: bool,
) -> None:
    """Find an answer's longest spans in what a run trained on.

    RUN is a run directory. TEXT is the answer, a file that holds it, or - to
    read it from a pipe.
    """
    if index:
        for name, option in _SEARCHING.items():
            if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
                raise click.UsageError(f"{option} does not go with --index, which searches nothing")
        _index(run, sampled, as_json)
        return
    if text is None:
        raise click.UsageError("give the TEXT to trace, or --index")
    from clearseek.trace.tracer import Tracer

    answer = _answer(text)
    tracer = Tracer(run, lambda line: click.echo(line, err=True), sampled=sampled)
    found = tracer.trace(answer, min_tokens, min_bytes, spans, documents)
    if as_json:
        print_json(found.to_dict())
        return
    searched = f"{found.documents_searched:,} documents, {found.bytes_searched:,} bytes"
    if not found.num_spans:
        click.echo(f"No span of {min_tokens} tokens found in the training data ({searched}).")
        return
    click.echo(
        f"{found.num_spans:,} spans of {min_tokens} tokens or more match the training data ({searched})."
    )
    for line in inherited_words(found.inherited):
        click.echo(line)
    for span in found.spans:
        _print_span(span)
    if found.num_spans > len(found.spans):
        click.echo(f"\n… and {found.num_spans - len(found.spans):,} more; --spans shows them")


_SEARCHING = {
    "text": "a TEXT",
    "min_tokens": "--min-tokens",
    "min_bytes": "--min-bytes",
    "spans": "--spans",
    "documents": "--documents",
}


def _index(run: Path, sampled: bool, as_json: bool) -> None:
    from clearseek.trace.shelves import build_indexes

    built = build_indexes(run, lambda line: click.echo(line, err=True), sampled)
    if as_json:
        print_json(vars(built))
    else:
        click.echo(str(built))


def _answer(text: str) -> str:
    """The text itself, a file's, or what a pipe brings; bytes that are no UTF-8 are an error with their place."""
    from clearseek.config.errors import InputError

    if text == "-":
        raw, name = sys.stdin.buffer.read(), "standard input"
    elif "\n" not in text and len(text) < 200 and Path(text).is_file():
        raw, name = Path(text).read_bytes(), text
    else:
        raw, name = text.encode("utf-8", "surrogateescape"), "the text"
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{name}: not UTF-8 (byte {error.start}); convert it to UTF-8") from None


def _print_span(span: "FoundSpan") -> None:
    times = f"{span.occurrences:,} time{'s' if span.occurrences != 1 else ''}"
    held = f"{span.num_documents:,} document{'s' if span.num_documents != 1 else ''}"
    click.echo(f"\n“{' '.join(span.text.split())}”")
    click.echo(f"  {span.words} tokens, bytes {span.start} to {span.end}; {times} in {held}")
    for name in span.evaluation:
        click.echo(f"  ! also in an evaluation set: {name}")
    for document in span.documents:
        _print_document(document)
    if span.num_documents > len(span.documents):
        click.echo(
            f"  … and {span.num_documents - len(span.documents):,} more documents; --documents shows them"
        )


def _print_document(document: "FoundDocument") -> None:
    click.echo(
        f"  - {document.source}, {document.place} · licence {document.licence} · {document.sha256[:16]}"
    )
    if document.teacher:
        stage, model = document.teacher["stage"], document.teacher["model"]
        told = f"stage {stage}, from {model}" if stage else f"{model}, as the recipe states"
        click.echo(f"    written by a model: {told}")
    for seen in document.seen:
        told = _UNREAD.get(seen["kind"]) or _steps(seen["steps"], seen["learning_rates"])
        click.echo(f"    {seen['document']} ({seen['kind']}): {told}")


_UNREAD = {"tokenizer": "tokenizer only, read by no step", "sampled": "sampled, never trained on"}


def _steps(steps: list[int], rates: list[float]) -> str:
    """Steps with their learning rates, the first and the last where there are many."""
    if not steps:
        return "read by no step"
    pairs = [f"step {step} at learning rate {rate:.3g}" for step, rate in zip(steps, rates, strict=True)]
    if len(pairs) <= 4:
        return ", ".join(pairs)
    return f"{len(pairs)} steps: {pairs[0]}, {pairs[1]}, … {pairs[-1]}"
