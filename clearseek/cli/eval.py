"""`clearseek eval`: how many held-out problems a model solves, by task and by language."""

from pathlib import Path
from typing import Any

import click

from clearseek.cli.options import (
    device_option,
    json_option,
    model_argument,
    print_columns,
    print_json,
    temperature_option,
)

EPILOG = """\b
Examples:
  clearseek eval runs/r1-mini
  clearseek eval runs/r1-mini --tasks arithmetic,countdown --samples 4 --json
  clearseek eval path/to/model --tasks problems.jsonl --problems 100

\b
MODEL is a run directory, one of its checkpoints, a directory in Hugging
Face format, or a GGUF file. The same seed asks the same problems with the
same random numbers.

Exit codes: 0 done, 1 failed, 2 the model, a task or an option is wrong."""


@click.command("eval", epilog=EPILOG)
@model_argument
@click.option(
    "--tasks",
    multiple=True,
    metavar="NAME,...",
    help="Task families or files of problems (.jsonl), comma-separated or repeated. [default: all]",
)
@click.option(
    "--samples", type=click.IntRange(min=1), default=1, show_default=True, help="Answers to each problem."
)
@click.option(
    "--problems", type=click.IntRange(min=1), default=300, show_default=True, help="How many problems to ask."
)
@temperature_option
@click.option("--seed", type=int, default=0, show_default=True)
@device_option
@json_option
def command(
    model: str,
    tasks: tuple[str, ...],
    samples: int,
    problems: int,
    temperature: float,
    seed: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure how many held-out problems a model solves."""
    from clearseek.cli.progress import open_progress
    from clearseek.eval.command import evaluate_path

    names = [name.strip() for group in tasks for name in group.split(",")]
    if "" in names:
        raise click.UsageError("--tasks holds an empty name")
    progress = open_progress()
    try:
        result = evaluate_path(
            Path(model),
            tasks=names or None,
            samples=samples,
            problems=problems,
            temperature=temperature,
            seed=seed,
            device=device,
            progress=progress,
        )
    finally:
        progress.end()
    if as_json:
        print_json(result)
    else:
        _print(result)


def _print(result: dict[str, Any]) -> None:
    low, high = result["ci95"]
    rows = [["pass@1", f"{result['pass_at_1']:.1%}", f"{low:.1%} to {high:.1%}, {result['n']} problems"]]
    for group in ("by_language", "by_task"):
        rows += [[f"  {name}", _share(score), ""] for name, score in result.get(group, {}).items()]
    if result.get("language_consistency") is not None:
        rows.append(["in the asked language", f"{result['language_consistency']:.1%}", ""])
    if result.get("mean_completion_tokens") is not None:
        rows.append(["tokens an answer", f"{result['mean_completion_tokens']:.1f}", ""])
    rows += [[name, str(result[name]), ""] for name in ("truncated", "errors") if name in result]
    print_columns(rows)


def _share(score: Any) -> str:
    value = score["pass_at_1"] if isinstance(score, dict) else score
    return f"{value:.1%}"
