"""An engine's side of the conversation: questions on standard input, answers on standard output, a line of JSON each.

Every worker stands in the environment of its own engine, so that this file needs the standard library only.
"""

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any, Protocol

# token ids of every completion, and their log-probabilities where the engine was made to tell them
Completions = tuple[list[list[int]], list[list[float]] | None]


_SET_PARENT_DEATH_SIGNAL = 1


class Unsupported(Exception):
    """What an engine can't be asked, in a line."""


class Engine(Protocol):
    """What a worker provides."""

    def load(self, path: str, format_name: str) -> dict[str, Any]:
        """Open a model; returns what the record should say, such as versions."""

    def generate(
        self, prompts: list[list[int]], max_tokens: int, samples: int, temperature: float, shares: bool
    ) -> Completions:
        """`samples` completions of every prompt, a prompt's together, none ended before `max_tokens`.

        Unless `shares`, other engines than ours read every prompt whole, though they have seen its beginning.
        """


def serve(engine: Engine) -> None:
    """Answer until the input ends. Whatever the engine prints goes to standard error."""
    _end_with_parent()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer = answer_to(engine, question.pop("do"), question)
        except Exception as error:  # noqa: BLE001 -- an engine may fail in any way, and the others go on
            answer = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
            if not isinstance(error, Unsupported):
                sys.excepthook(type(error), error, error.__traceback__)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _end_with_parent() -> None:
    """Be killed when whoever asks is: a stopped process would never read that the questions ended."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def answer_to(engine: Engine, do: str, details: dict[str, Any]) -> dict[str, Any]:
    """`load`, `generate`, or another method of the engine; wall seconds beside what it says."""
    started = time.perf_counter()
    if do != "generate":
        found: dict[str, Any] = getattr(engine, do)(**details)
        return {**found, "seconds": time.perf_counter() - started}
    tokens, log_probs = engine.generate(**details)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "tokens": tokens, "log_probs": log_probs}
