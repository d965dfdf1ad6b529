"""The `clearseek` command: its table of commands, and where an error becomes a line and an exit code."""

import errno
import os
import shlex
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

import click

from clearseek import __version__
from clearseek.cli.lazy import LazyGroup
from clearseek.config.errors import InputError, InputWarning, RunError

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

COMMANDS = {
    "run": ("clearseek.cli.run", "Run a recipe, or continue a run that was stopped."),
    "chat": ("clearseek.cli.chat", "Talk with a model, in the browser or in the terminal."),
    "generate": ("clearseek.cli.generate", "Answer one prompt, from an argument or from a pipe."),
    "serve": ("clearseek.cli.serve", "Serve models over HTTP, as OpenAI's and DeepSeek's APIs do."),
    "eval": ("clearseek.cli.eval", "Measure how many held-out problems a model solves."),
    "bench": ("clearseek.cli.bench", "Measure the engine's speed here, or what weight formats cost a model."),
    "info": ("clearseek.cli.info", "Describe a model without loading it: sizes, memory, licence."),
    "pull": ("clearseek.cli.pull", "Download a model from the Hugging Face Hub."),
    "export": ("clearseek.cli.export", "Write a model for other programs: Hugging Face format or GGUF."),
    "new": ("clearseek.cli.new", "Write a recipe for your own model and problems."),
    "report": ("clearseek.cli.report", "Write a run's report again from its records."),
    "cost": ("clearseek.cli.cost", "Say what a run has cost, by stage and by point of accuracy."),
    "data": ("clearseek.cli.data", "Show what went into a run: sources, licences, languages, filters."),
    "papers": (
        "clearseek.cli.papers",
        "Write every paper of a finished run: cards, bills of materials, checklists.",
    ),
    "openness": ("clearseek.cli.openness", "Say how open a run is, and what is missing for the next class."),
    "trace": ("clearseek.cli.trace", "Find an answer's longest spans in what a run trained on."),
    "ledger": ("clearseek.cli.ledger", "Check what a run recorded, and compute it again."),
    "why": ("clearseek.cli.why", "Show what an answer owes to a document, a source or a problem."),
    "claims": ("clearseek.cli.claims", "Hold the figures of documents to the records that they come from."),
    "verify": ("clearseek.cli.verify", "Check one answer with a verifier."),
    "privacy-test": (
        "clearseek.cli.privacy_test",
        "Show that nothing leaves this machine or stays of what was typed.",
    ),
    "doctor": ("clearseek.cli.doctor", "Describe this machine, or say what ails a run."),
    "completion": ("clearseek.cli.completion", "Print the completion script for a shell."),
}


def _set_debug(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        os.environ["CLEARSEEK_DEBUG"] = "1"


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Start here:
  clearseek run r1-mini           from nothing to a small model that reasons
  clearseek chat runs/r1-mini     talk with it

Exit codes: 0 done, 1 failed, 2 the input is wrong, 130 interrupted.""",
)
@click.version_option(__version__, "-V", "--version", message="clearseek %(version)s")
@click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_set_debug,
    help="Show tracebacks (also CLEARSEEK_DEBUG=1).",
)
def cli() -> None:
    """Train a reasoning model from nothing, check it, and talk with it, on your own machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; only here are errors turned into lines on stderr."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _share_the_machine()
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _warn
            result = cli.main(words, prog_name="clearseek", standalone_mode=False)
    except click.exceptions.Abort:
        return _say(_interrupted(words), INTERRUPTED)
    except click.ClickException as error:
        error.show()
        return WRONG_INPUT if isinstance(error, click.FileError) else error.exit_code
    except BrokenPipeError:
        return _reader_left()
    except Exception as error:  # the last place that can turn an error into one line
        if os.environ.get("CLEARSEEK_DEBUG", "0") not in ("", "0"):
            raise
        return _explain(error)
    return result if isinstance(result, int) else DONE


def _share_the_machine() -> None:
    """Let waiting threads sleep soon: torch's would else keep a core busy that another program needs.

    A compromise: beside a busy program training is 1.5 times as fast or more, alone up to a quarter slower
    (docs/log.md, 2026-11-26). Read by libgomp when torch is loaded, so it must come before.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "3000")


def _warn(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """One of ours as a line, from the first rank; others as Python writes them."""
    if not issubclass(category, InputWarning):
        click.echo(warnings.formatwarning(message, category, filename, lineno, line), err=True, nl=False)
    elif os.environ.get("RANK", "0") == "0":
        _say(f"warning: {message}", DONE)


def _explain(error: Exception) -> int:
    if os.environ.get("RANK", "0") != "0" and (isinstance(error, InputError) or hasattr(error, "is_told")):
        return WRONG_INPUT if isinstance(error, InputError) else FAILED  # the first rank says it
    if isinstance(error, InputError):
        return _say(f"error: {error}", WRONG_INPUT)
    if isinstance(error, RunError):
        return _say(f"error: {error}", FAILED)
    if isinstance(error, OSError) and error.strerror:
        place = f"{error.filename}: " if error.filename else ""
        full = "; make room and run the same command again: what was written whole is kept"
        return _say(f"error: {place}{error.strerror}{full * (error.errno == errno.ENOSPC)}", FAILED)
    if isinstance(error, MemoryError):
        return _say("error: out of memory; `clearseek run RECIPE --dry-run` says how much is needed", FAILED)
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return _say(
        f"error: {what}\nThis is a mistake in clearseek, not in your input. Please report it with what "
        "`clearseek --debug …` and `clearseek doctor` print (see CONTRIBUTING.md, Reporting).",
        FAILED,
    )


def _interrupted(words: Sequence[str]) -> str:
    if "run" in words and "--dry-run" not in words:
        return f"interrupted; the same command continues: clearseek {shlex.join(words)}"
    return "interrupted"


def _reader_left() -> int:
    """Whoever read our output has closed it (`| head`): leave quietly, also at interpreter exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED


def _say(text: str, exit_code: int) -> int:
    click.echo(text, err=True)
    return exit_code
