"""`clearseek bench formats`: what weight formats cost a model, and what they save."""

from pathlib import Path
from typing import Any

import click

from clearseek.cli.options import json_option, model_argument, print_columns, print_json

EPILOG = """\b
Examples:
  clearseek bench formats runs/r1-mini
  clearseek bench formats model --data text.txt --formats int8,int4:64
  clearseek bench formats model --formats int4 --formats int4,head=int8 --json

\b
Tokens a second are of one stream. Perplexity is of --data, else of fp32's own answers; KL is the mean distance of
each token's distribution from fp32's, in nats. Problems are held-out ones and
answered greedily. Formats are those of `clearseek generate --format`; one with
parts of its own takes a --formats to itself.

Exit codes: 0 done, 1 failed, 2 the model, a task or an option is wrong."""


@click.command("formats", epilog=EPILOG)
@model_argument
@click.option("--formats", multiple=True, default=("float32,bfloat16,int8,int4",), show_default=True)
@click.option("--data", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A file of text.")
@click.option(
    "--tasks", multiple=True, metavar="NAME,...", help="Task families or files of problems (.jsonl)."
)
@click.option("--problems", type=click.IntRange(min=1), default=100, show_default=True)
@click.option("--text-tokens", type=click.IntRange(min=1), default=8192, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@json_option
def command(
    model: str,
    formats: tuple[str, ...],
    data: Path | None,
    tasks: tuple[str, ...],
    problems: int,
    text_tokens: int,
    seed: int,
    as_json: bool,
) -> None:
    """Measure perplexity, distance from fp32, pass@1, size and speed by format."""
    from clearseek.cli.progress import open_progress
    from clearseek.eval.formats import bench_formats

    wanted = [one for group in formats for one in ([group] if "=" in group else group.split(","))]
    names = [name.strip() for group in tasks for name in group.split(",")]
    progress = open_progress()
    try:
        result = bench_formats(
            Path(model), wanted, data, names or None, problems, text_tokens, seed, progress
        )
    finally:
        progress.end()
    print_json(result) if as_json else _print(result)


def _print(result: dict[str, Any]) -> None:
    rows = [["", "MB", "tokens/s", "of fp32's", "perplexity", "KL", "pass@1"]]
    for name, row in result["formats"].items():
        if "why" not in row:
            rows.append([
                name, f"{row['bytes'] / 1e6:,.1f}", f"{row['tokens_per_second']:,.0f}",
                f"{row['times_float32']:.2f}", f"{row['perplexity']:.4f}",
                f"{row['kl']:.2g}", f"{row['pass_at_1']:.1%}",
            ])  # fmt: skip
    print_columns(rows)
    for name, row in result["formats"].items():
        if "why" in row:
            click.echo(f"{name}: {row['why']}")
    asked = f"{result['text_tokens']} tokens of {result['text']}, {result['problems']} problems"
    click.echo(f"{result['parameters']:,} parameters; {asked}")
