"""`clearseek chat`: a conversation in the terminal."""

from typing import Any

import click

from clearseek.cli.options import device_option, model_argument
from clearseek.cli.sampling_options import GroupedCommand, check_early, sampling_options

EPILOG = """\b
Example:
  clearseek chat runs/r1-mini

\b
Inside: /help lists what can be typed; Ctrl-C stops an answer, Ctrl-D leaves.
Nothing is kept after leaving, unless /save wrote it.

Exit codes: 0 left, 1 failed, 2 the model or an option is wrong."""


@click.command("chat", cls=GroupedCommand, epilog=EPILOG)
@model_argument
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Per answer. [default: what the model's context holds]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answers.")
@click.option("--hide-thinking", is_flag=True, help="Show answers only.")
@sampling_options
@device_option
def command(
    model: str,
    max_tokens: int | None,
    seed: int,
    hide_thinking: bool,
    settings: dict[str, Any],
    form: str | None,
    speculation: str | None,
    device: str,
) -> None:
    """Talk with a model in the terminal.

    MODEL is a run directory, one of its checkpoints, a directory in Hugging
    Face format, or a GGUF file.
    """
    check_early(settings, max_tokens)

    from clearseek.cli.conversation import Conversation
    from clearseek.engine.session import open_session

    session = open_session(model, device, form, speculation)
    Conversation(session, model, settings, max_tokens, seed, hide_thinking).run()
