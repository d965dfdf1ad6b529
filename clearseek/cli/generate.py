"""`clearseek generate`: one prompt, one answer."""

import sys

import click

from clearseek.cli.options import (
    device_option,
    json_option,
    model_argument,
    print_json,
    temperature_option,
)

EPILOG = """\b
Examples:
  clearseek generate runs/r1-mini "What is 17 * 23?"
  cat question.txt | clearseek generate runs/r1-mini --hide-thinking
  clearseek generate runs/r1-mini "17 * 23" --temperature 0 --json

\b
In a terminal the thought is dim; elsewhere it stands between <think> and
</think>. --json prints {"thought", "answer", "tokens", "finish_reason"};
finish_reason is "stop", or "length" where --max-tokens or the model's context
cut the answer short.

Exit codes: 0 done, 1 failed, 2 the model or an option is wrong."""


@click.command("generate", epilog=EPILOG)
@model_argument
@click.argument("prompt", required=False)
@temperature_option
@click.option("--max-tokens", type=click.IntRange(min=1), help="[default: what the model's context holds]")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answer.")
@click.option("--hide-thinking", is_flag=True, help="Print the answer only.")
@device_option
@json_option
def command(
    model: str,
    prompt: str | None,
    temperature: float,
    max_tokens: int | None,
    seed: int,
    hide_thinking: bool,
    device: str,
    as_json: bool,
) -> None:
    """Answer one prompt, from an argument or from a pipe.

    MODEL is a run directory, one of its checkpoints, a directory in Hugging
    Face format, or a GGUF file. Without PROMPT, or with -, the prompt is standard input.
    """
    text = _read_prompt(prompt)

    from clearseek.cli.streaming import AnswerPrinter, why_cut_short
    from clearseek.engine.session import open_session

    session = open_session(model, device)
    messages = [{"role": "user", "content": text}]
    pieces = session.stream(messages, temperature=temperature, max_tokens=max_tokens, seed=seed)
    if not as_json:
        AnswerPrinter(hide_thinking).write_all(pieces)
        if session.finish_reason == "length":
            click.echo(why_cut_short(session, max_tokens), err=True)
        return
    said = {"thought": "", "answer": ""}
    for kind, piece in pieces:
        said[kind] += piece
    if hide_thinking:
        del said["thought"]
    print_json({**said, "tokens": session.completion_tokens, "finish_reason": session.finish_reason})


def _read_prompt(prompt: str | None) -> str:
    if prompt is None or prompt == "-":
        if sys.stdin.isatty():
            raise click.UsageError(
                'no prompt: give one, as in clearseek generate MODEL "prompt", or pipe one in'
            )
        prompt = sys.stdin.read()
    if not prompt.strip():
        raise click.UsageError("the prompt is empty")
    return prompt.strip()
