"""`clearseek chat`: a conversation in the terminal."""

import click

from clearseek.cli.options import device_option, model_argument, temperature_option

EPILOG = """\b
Example:
  clearseek chat runs/r1-mini

\b
Inside: /help lists what can be typed; Ctrl-C stops an answer, Ctrl-D leaves.
Nothing is kept after leaving, unless /save wrote it.

Exit codes: 0 left, 1 failed, 2 the model or an option is wrong."""


@click.command("chat", epilog=EPILOG)
@model_argument
@temperature_option
@click.option(
    "--max-tokens", type=click.IntRange(min=1), help="Per answer. [default: what the model's context holds]"
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answers.")
@click.option("--hide-thinking", is_flag=True, help="Show answers only.")
@device_option
def command(
    model: str, temperature: float, max_tokens: int | None, seed: int, hide_thinking: bool, device: str
) -> None:
    """Talk with a model in the terminal.

    MODEL is a run directory, one of its checkpoints, a directory in Hugging
    Face format, or a GGUF file.
    """
    from clearseek.cli.conversation import Conversation
    from clearseek.engine.session import open_session

    session = open_session(model, device)
    Conversation(session, model, temperature, max_tokens, seed, hide_thinking).run()
