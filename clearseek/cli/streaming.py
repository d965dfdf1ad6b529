"""An answer as it arrives: the thought dim in a terminal, between its own tags where a program reads."""

import sys
from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

import click

Kind = Literal["thought", "answer"]
Message = dict[str, str]


class Session(Protocol):
    """What the commands need of `clearseek.engine.session`; the two fields describe the last stream."""

    completion_tokens: int

    @property
    def finish_reason(self) -> str:
        """Why the last stream ended."""
        ...

    def stream(
        self,
        messages: list[Message],
        max_tokens: int | None = None,
        seed: int = 0,
        thinking: bool = True,
        **settings: Any,
    ) -> Iterator[tuple[Kind, str]]:
        """Pieces of the thought and of the answer, as they are generated."""


def why_cut_short(session: Session, max_tokens: int | None) -> str:
    """One line on an answer that ended before its end token: by a limit of the user's, or the context."""
    if session.finish_reason == "deadline":
        return "cut short: its time was up (--timeout)"
    if max_tokens is not None and session.completion_tokens >= max_tokens:
        return f"cut short: the limit of {max_tokens} tokens was reached (--max-tokens)"
    return "cut short: the model's context is full; a shorter conversation leaves more room"


class AnswerPrinter:
    """Writes (kind, text) pieces to stdout and keeps what was said."""

    def __init__(self, hide_thinking: bool = False) -> None:
        self.thought = ""
        self.answer = ""
        self._hide_thinking = hide_thinking
        self._dims = sys.stdout.isatty()
        self._thought_open = False

    def write_all(self, pieces: Iterable[tuple[Kind, str]]) -> None:
        """Write pieces until there are no more; what was said stays known when this is interrupted."""
        try:
            for kind, text in pieces:
                self._write(kind, text)
        finally:
            self._close_thought()
            if not self.answer.endswith("\n"):
                click.echo()

    def _write(self, kind: Kind, text: str) -> None:
        if kind == "thought":
            self.thought += text
            if not self._hide_thinking:
                self._open_thought()
                self._emit(click.style(text, dim=True) if self._dims else text)
        else:
            self._close_thought()
            text = text if self.answer else text.lstrip()
            self.answer += text
            self._emit(text)

    def _open_thought(self) -> None:
        if not self._thought_open and not self._dims:
            self._emit("<think>")
        self._thought_open = True

    def _close_thought(self) -> None:
        if self._thought_open:
            self._emit("\n\n" if self._dims else "</think>\n")
        self._thought_open = False

    def _emit(self, text: str) -> None:
        click.echo(text, nl=False)
        sys.stdout.flush()
