"""The loop behind `clearseek chat`: read a line, answer it or obey it, until the user leaves."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from clearseek.cli.streaming import AnswerPrinter, Message, Session, why_cut_short

HELP = """\
/help             this list
/clear            forget the conversation
/think on|off     whether the model thinks before it answers
/temperature X    0 takes the likeliest token; higher is more varied
/save FILE        write the conversation: Markdown if FILE ends in .md, else JSON
/exit             leave (also Ctrl-D)
Ctrl-C stops an answer. A line that ends in \\ goes on in the next."""


class Conversation:
    """One chat: the messages so far, and what the user has set.

    Thoughts are shown and saved but not fed back, as the model was trained: a turn sees earlier answers only.
    """

    def __init__(
        self,
        session: Session,
        model: str,
        settings: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        seed: int = 0,
        hide_thinking: bool = False,
    ) -> None:
        self.messages: list[Message] = []
        self.thinking = True
        self.settings = dict(settings or {})  # those of Sampling that differ from the model's own
        self._session, self._model = session, model
        self._max_tokens, self._seed, self._hide_thinking = max_tokens, seed, hide_thinking
        self._commands: dict[str, Callable[[str], None]] = {
            "/help": self._help,
            "/clear": self._clear,
            "/think": self._think,
            "/temperature": self._set_temperature,
            "/save": self._save,
        }

    def run(self) -> None:
        """Talk until the user leaves."""
        if sys.stdin.isatty():
            import readline  # noqa: F401  gives input() line editing and history
        click.echo(f"{self._model}. /help for what can be typed, Ctrl-D to leave.", err=True)
        while (line := self._read()) is not None:
            if line.startswith("/"):
                if line.split()[0] in ("/exit", "/quit"):
                    break
                self._obey(line)
            elif line:
                self._answer(line)

    def _read(self) -> str | None:
        lines: list[str] = []
        while True:
            try:
                line = input("... " if lines else ">>> ") if sys.stdin.isatty() else input()
            except EOFError:
                if sys.stdin.isatty():
                    click.echo(err=True)
                return "\n".join(lines).strip() or None
            except KeyboardInterrupt:
                click.echo("\nCtrl-D or /exit leaves.", err=True)
                return ""
            if not line.endswith("\\"):
                return "\n".join([*lines, line]).strip()
            lines.append(line[:-1])

    def _answer(self, prompt: str) -> None:
        asked = [{"role": m["role"], "content": m["content"]} for m in self.messages]
        asked.append({"role": "user", "content": prompt})
        printer = AnswerPrinter(self._hide_thinking)
        pieces = self._session.stream(
            asked,
            max_tokens=self._max_tokens,
            seed=self._seed + len(self.messages) // 2,
            thinking=self.thinking,
            **self.settings,
        )
        try:
            printer.write_all(pieces)
        except KeyboardInterrupt:
            click.echo("stopped", err=True)
        else:
            if self._session.finish_reason == "length":
                click.echo(why_cut_short(self._session, self._max_tokens), err=True)
        if printer.answer.strip():
            self.messages.append({"role": "user", "content": prompt})
            self.messages.append(
                {"role": "assistant", "content": printer.answer.strip(), "thought": printer.thought.strip()}
            )

    def _obey(self, line: str) -> None:
        word, _, rest = line.partition(" ")
        command = self._commands.get(word)
        if command is None:
            click.echo(f"no {word} here; /help lists what there is", err=True)
        else:
            command(rest.strip())

    def _help(self, rest: str) -> None:
        click.echo(HELP, err=True)

    def _clear(self, rest: str) -> None:
        self.messages.clear()
        click.echo("forgotten", err=True)

    def _think(self, rest: str) -> None:
        if rest not in ("on", "off"):
            click.echo("/think on or /think off", err=True)
            return
        self.thinking = rest == "on"
        click.echo(f"thinking is {rest}", err=True)

    def _set_temperature(self, rest: str) -> None:
        try:
            value = float(rest)
        except ValueError:
            value = -1.0
        if not 0 <= value < float("inf"):
            click.echo("/temperature needs a number from 0 up, such as 0.6", err=True)
            return
        self.settings["temperature"] = value
        click.echo(f"temperature is {value:g}", err=True)

    def _save(self, rest: str) -> None:
        if not rest:
            click.echo("/save needs a file name", err=True)
            return
        path = Path(rest).expanduser()
        text = self._as_markdown() if path.suffix == ".md" else self._as_json()
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError:
            click.echo(f"{path} is there already; choose another name", err=True)
        except OSError as error:
            click.echo(f"cannot write {path}: {error.strerror}", err=True)
        else:
            click.echo(f"saved to {path}", err=True)

    def _as_json(self) -> str:
        saved = {"model": self._model, "messages": self.messages}
        return json.dumps(saved, ensure_ascii=False, indent=2) + "\n"

    def _as_markdown(self) -> str:
        parts = [f"# {self._model}"]
        for message in self.messages:
            parts.append(f"## {message['role']}")
            if message.get("thought"):
                parts.append("\n".join(f"> {line}" for line in message["thought"].splitlines()))
            parts.append(message["content"])
        return "\n\n".join(parts) + "\n"
