"""`clearseek chat`: a conversation, in the browser or in the terminal."""

import sys
from pathlib import Path
from typing import Any

import click

from clearseek.cli.options import device_option
from clearseek.cli.sampling_options import GroupedCommand, check_early, sampling_options

EPILOG = """\b
Examples:
  clearseek chat                                 the small model that comes with clearseek
  clearseek chat runs/r1-mini
  clearseek chat runs/r1-mini runs/library       two that can be compared
  clearseek chat runs/r1-mini --terminal

\b
The page is for this machine alone. Conversations are kept only where you
choose so there. In the terminal /help lists what can be typed, Ctrl-C stops
an answer, Ctrl-D leaves, and nothing is kept unless /save wrote it. Where
lines are piped in, it is the terminal's form, too.

Exit codes: 0 left, 1 failed, 2 a model or an option is wrong."""
_TERMINAL_ONLY = ("max_tokens", "seed", "hide_thinking")


@click.command("chat", cls=GroupedCommand, epilog=EPILOG)
@click.argument("models", metavar="[MODEL]...", nargs=-1, type=click.Path())
@click.option("--terminal", is_flag=True, help="Talk here instead of in the browser.")
@click.option(
    "--history",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Where the page keeps what you choose to keep.",
)
@click.option("--no-open", is_flag=True, help="Don't open the browser; only say the page's address.")
@click.option(
    "--max-tokens",
    type=click.IntRange(min=1),
    help="Per answer, in the terminal. [default: what the context holds]",
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="In the terminal: the same gives the same answers."
)
@click.option("--hide-thinking", is_flag=True, help="In the terminal: show answers only.")
@sampling_options
@device_option
@click.pass_context
def command(
    context: click.Context,
    models: tuple[str, ...],
    terminal: bool,
    history: Path | None,
    no_open: bool,
    max_tokens: int | None,
    seed: int,
    hide_thinking: bool,
    settings: dict[str, Any],
    how: dict[str, Any],
    device: str,
) -> None:
    """Talk with a model, in the browser or in the terminal.

    MODEL is a run directory, one of its checkpoints, a directory in Hugging
    Face format, or a GGUF file; without one it is the small model that comes
    with clearseek.
    """
    check_early(settings, max_tokens)
    if not models:
        from clearseek.config.shipped import shipped_model

        models = (str(shipped_model()),)
    if terminal or not sys.stdin.isatty():
        _check_terminal(models, history, no_open)
        _in_terminal(models[0], {"device": device, **how}, settings, max_tokens, seed, hide_thinking)
        return
    _check_browser(context)
    from clearseek.cli.browser import chat_in_browser

    chat_in_browser(models, history, not no_open, {"device": device, **how}, settings)


def _in_terminal(
    model: str,
    how: dict[str, Any],
    settings: dict[str, Any],
    max_tokens: int | None,
    seed: int,
    hide_thinking: bool,
) -> None:
    from clearseek.cli.conversation import Conversation
    from clearseek.engine.session import open_session

    session = open_session(model, **how)
    Conversation(session, model, settings, max_tokens, seed, hide_thinking).run()


def _check_terminal(models: tuple[str, ...], history: Path | None, no_open: bool) -> None:
    """UsageError for what only the page can do."""
    if len(models) > 1:
        raise click.UsageError("In the terminal one model talks; give one MODEL.")
    for flag, given in (("--history", history is not None), ("--no-open", no_open)):
        if given:
            raise click.UsageError(f"{flag} is the page's; leave it out with --terminal.")


def _check_browser(context: click.Context) -> None:
    """UsageError for what only the terminal's form takes."""
    for name in _TERMINAL_ONLY:
        if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
            flag = "--" + name.replace("_", "-")
            raise click.UsageError(f"{flag} is the terminal's: add --terminal, or set it in the page.")
