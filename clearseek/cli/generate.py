"""`clearseek generate`: one prompt, one answer."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from clearseek.cli.options import FiniteRange, device_option, json_option, model_argument, print_json
from clearseek.cli.sampling_options import GroupedCommand, check_early, sampling_options
from clearseek.cli.streaming import AnswerPrinter, Kind, why_cut_short

EPILOG = """\b
Examples:
  clearseek generate runs/r1-mini "What is 17 * 23?"
  cat question.txt | clearseek generate runs/r1-mini --hide-thinking
  clearseek generate runs/r1-mini "17 * 23" --temperature 0 --json
  clearseek generate model "A city?" --json-schema city.json --format int8

\b
In a terminal the thought is dim; elsewhere it stands between <think> and
</think>. --json prints {"thought", "answer", "tokens", "finish_reason",
"stopped_by", "log_probs", "prompt_tokens", "seconds_to_first_token",
"tokens_per_second", "why_plain", "speculation"}, with -n several
{"answers": [...], ...}. why_plain says why the model goes through PyTorch, null
where it does not; speculation counts by place the tokens that were guessed and
those that came true. finish_reason is "stop", "deadline" after --timeout, or
"length" where --max-tokens or the model's context cut the answer short.
log_probs has each token with its text and log-probability at the temperature, by
--processed-log-probs also at temperature 1, in what it was drawn from, and the
mass that truncation kept. Constrained answers need pip install
'clearseek[constraints]'.

Exit codes: 0 done, 1 failed, 2 the model or an option is wrong."""


@click.command("generate", cls=GroupedCommand, epilog=EPILOG)
@model_argument
@click.argument("prompt", required=False)
@click.option("--max-tokens", type=click.IntRange(min=1), help="[default: what the model's context holds]")
@click.option(
    "--timeout",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Print what there is of it after so long.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed gives the same answer.")
@click.option("-n", "--n", type=click.IntRange(min=1), default=1, show_default=True, help="So many answers.")
@click.option("--best-of", type=click.IntRange(min=1), help="Draw so many, print the n likeliest of them.")
@click.option(
    "--top-log-probs", type=int, default=0, help="With --json: so many likeliest beside each token."
)
@click.option("--processed-log-probs", is_flag=True, help="With --json: what each token was drawn from, too.")
@click.option("--hide-thinking", is_flag=True, help="Print the answer only.")
@sampling_options
@device_option
@json_option
def command(
    model: str,
    prompt: str | None,
    max_tokens: int | None,
    timeout: float | None,
    seed: int,
    n: int,
    best_of: int | None,
    top_log_probs: int,
    processed_log_probs: bool,
    hide_thinking: bool,
    settings: dict[str, Any],
    how: dict[str, Any],
    device: str,
    as_json: bool,
) -> None:
    """Answer one prompt, from an argument or from a pipe.

    MODEL is a run directory, one of its checkpoints, a directory in Hugging
    Face format, or a GGUF file. Without PROMPT, or with -, the prompt is standard input.
    """
    if top_log_probs and not as_json:
        raise click.UsageError("--top-log-probs are printed with --json only; add it")
    messages = [{"role": "user", "content": _read_prompt(prompt)}]
    if processed_log_probs and not as_json:
        raise click.UsageError("--processed-log-probs are printed with --json only; add it")
    settings |= {"top_log_probs": top_log_probs} if top_log_probs else {}
    settings |= {"processed_log_probs": True} if processed_log_probs else {}
    check_early(settings, max_tokens)

    from clearseek.engine.session import open_session

    session = open_session(model, device=device, **how)
    asked = {"messages": messages, "max_tokens": max_tokens, "seed": seed, **settings}
    asked |= {} if timeout is None else {"deadline_seconds": timeout}
    if as_json or n > 1 or best_of is not None:
        replies = session.replies(**asked, num_samples=n, best_of=best_of)
        _print_all(session, replies, hide_thinking) if as_json else _write_all(replies, hide_thinking)
        return
    AnswerPrinter(hide_thinking).write_all(session.stream(**asked))
    if session.finish_reason in ("length", "deadline"):
        click.echo(why_cut_short(session, max_tokens), err=True)


def _write_all(replies: Sequence[Any], hide_thinking: bool) -> None:
    for number, reply in enumerate(replies, 1):
        click.echo(f"answer {number} of {len(replies)} ({reply.completion.finish_reason})", err=True)
        pieces: list[tuple[Kind, str]] = [("thought", reply.thought)] if reply.thought else []
        AnswerPrinter(hide_thinking).write_all([*pieces, ("answer", reply.answer)])


def _print_all(session: Any, replies: Sequence[Any], hide_thinking: bool) -> None:
    answers = [_table(reply, hide_thinking) for reply in replies]
    about = {
        "prompt_tokens": session.prompt_tokens,
        "seconds_to_first_token": session.seconds_to_first_token,
        "tokens_per_second": session.tokens_per_second,
        "why_plain": session.engine.why_plain,
        "speculation": _speculation(session.engine),
    }
    print_json({**answers[0], **about} if len(answers) == 1 else {"answers": answers, **about})


def _speculation(engine: Any) -> dict[str, list[int]] | None:
    """How many tokens were guessed at each place after the newest, and how many came true; None: nobody guesses."""
    if engine.speculation is None:
        return None
    return {"guessed": engine.acceptance.guessed, "accepted": engine.acceptance.accepted}


def _table(reply: Any, hide_thinking: bool) -> dict[str, Any]:
    return {
        **({} if hide_thinking else {"thought": reply.thought}),
        "answer": reply.answer,
        "tokens": len(reply.completion.tokens),
        "finish_reason": reply.completion.finish_reason,
        "stopped_by": reply.completion.stopped_by,
        "log_probs": reply.records,
    }


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
