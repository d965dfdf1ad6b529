"""`clearseek new`: write a recipe for the user's own model and problems."""

from pathlib import Path

import click

EPILOG = """\b
Example:
  clearseek new mine --base runs/r1-mini --data problems.jsonl
  clearseek run mine.toml
  clearseek chat runs/mine
  clearseek new small --base Qwen3-0.6B --data problems.jsonl --lora

\b
problems.jsonl holds one problem a line:
  {"prompt": "What is 6 times 7?", "answer": "42", "verifier": "number"}
Verifiers: number, exact, choice, math, regex, json, or path.py:function.
GSM8K's own layout (question and answer) is read as it is.

Exit codes: 0 written, 1 failed, 2 the model, the data or an option is wrong."""


@click.command("new", epilog=EPILOG)
@click.argument("name")
@click.option(
    "--base",
    required=True,
    type=click.Path(),
    metavar="DIR",
    help="The model to start from: a run directory, a checkpoint, or a Hugging Face directory.",
)
@click.option(
    "--data", required=True, type=click.Path(), metavar="FILE", help="Your problems, one JSON object a line."
)
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Where to write.  [default: NAME.toml]"
)
@click.option("--lora", is_flag=True, help="Train a low-rank adapter instead of every weight.")
def command(name: str, base: str, data: str, out: Path | None, lora: bool) -> None:
    """Write a recipe for your own model and problems."""
    from clearseek.recipe.new import new_recipe

    path = new_recipe(name, base=Path(base), data=Path(data), out=out, lora=lora)
    click.echo(path)
    click.echo(f"next: clearseek run {path} --dry-run, then clearseek run {path}", err=True)
