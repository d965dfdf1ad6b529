"""Arguments and options that several commands share, and how a result is written."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class RecipeName(click.ParamType):
    """A recipe's path, or the bare name of one that comes with clearseek; completes both."""

    name = "recipe"

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Names of the recipes that come with clearseek, then files."""
        from clearseek.config.shipped import shipped_recipes

        names = [CompletionItem(name) for name in shipped_recipes() if name.startswith(incomplete)]
        return [*names, CompletionItem(incomplete, type="file")]


class RunPath(click.ParamType):
    """A run's directory, a model's that brings its run along, or the bare name of the model that comes along."""

    name = "run"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Path:
        """The directory of the run, unpacked if need be; the command names what is missing where it is none."""
        from clearseek.trace.excerpt import find_run

        return find_run(Path(value))

    def shell_complete(
        self, context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Directories."""
        return [CompletionItem(incomplete, type="dir")]


class FiniteRange(click.FloatRange):
    """A number in a range, of which nan and inf are none."""

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> float:
        """The number; a usage error for anything else."""
        number = float(super().convert(value, parameter, context))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", parameter, context)
        return number


def model_argument(command: Decorated) -> Decorated:
    """MODEL: a run directory, one of its checkpoints, a directory in Hugging Face format, or a GGUF file."""
    return click.argument("model", type=click.Path())(command)


def device_option(command: Decorated) -> Decorated:
    """--device: where to compute."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to compute.",
    )(command)


def temperature_option(command: Decorated) -> Decorated:
    """--temperature: how varied answers are."""
    return click.option(
        "--temperature",
        type=FiniteRange(min=0),
        default=0.6,
        show_default=True,
        help="0 takes the likeliest token.",
    )(command)


def json_option(command: Decorated) -> Decorated:
    """--json: the result as one JSON object."""
    return click.option("as_json", "--json", is_flag=True, help="Print the result as one JSON object.")(
        command
    )


def print_json(result: object) -> None:
    """Write `result` to stdout as one JSON object."""
    click.echo(json.dumps(result, ensure_ascii=False, indent=2, default=str))


def columns(rows: list[list[str]], left: int = 1) -> str:
    """`rows` as lines with every column as wide as its longest cell, the first `left` ones left-aligned."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = (
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def print_columns(rows: list[list[str]], left: int = 1) -> None:
    """Write `rows` to stdout as `columns` sets them."""
    click.echo(columns(rows, left))


def inherited_words(inherited: list[dict[str, Any]]) -> list[str]:
    """Of a fork, a line for each run that it took stages over from."""
    return [
        f"{', '.join(one['stages'])}: taken over from the run whose ledger ends with {one['ledger_head'][:16]}"
        for one in inherited
    ]


def is_first_rank() -> bool:
    """Whether this process speaks for the run: under torchrun only rank 0 prints."""
    return os.environ.get("RANK", "0") == "0"
