"""A reply read while it is written: the thought, then the answer with its calls, as events."""

import secrets
import string
from collections.abc import Mapping
from typing import Any

from clearseek.text.thoughts import ThoughtParser
from clearseek.text.tool_calls import harmony
from clearseek.text.tool_calls.calls import Calls, MakeId, Schemas
from clearseek.text.tool_calls.events import Content, Event, Thought
from clearseek.text.tool_calls.form import CallForm
from clearseek.text.tool_calls.llama import LlamaCalls
from clearseek.text.tool_calls.reader import Reader, Steps
from clearseek.text.tool_calls.recognise import ReplyForm

_LETTERS = string.ascii_letters + string.digits


class ReplyParser:
    """Reads one reply. Any division of a text into chunks gives the same, but for where texts are cut."""

    def __init__(
        self,
        form: ReplyForm,
        inside_thought: bool,
        schemas: Schemas | None = None,
        make_id: MakeId | None = None,
    ) -> None:
        """`inside_thought`: the prompt has opened the thought. `schemas`: the arguments' schemas of the tools that were
        given, by name; None where none were, and then nothing is a call."""
        self._reader = Reader()
        self._thoughts = None if form.is_harmony else ThoughtParser(inside_thought, form.thought)
        length = form.calls.id_length if form.calls else 0
        calls = Calls(self._reader, schemas or {}, make_id or (lambda index: _new_id(length)))
        may_call = schemas is not None
        if form.is_harmony:
            self._steps = harmony.read_harmony(calls, may_call)
        else:
            self._steps = _answer(calls, form, form.calls if may_call else None)

    @property
    def inside_thought(self) -> bool:
        """Whether the reply is inside its thought."""
        return self._thoughts is not None and self._thoughts.inside_thought

    def feed(self, text: str) -> list[Event]:
        """Take more text and give back what is now certain, in order."""
        if self._thoughts is None:
            return self._read(text)
        return self._part(self._thoughts.feed(text))

    def finish(self) -> list[Event]:
        """The text has ended: give back what was held."""
        events = [] if self._thoughts is None else self._part(self._thoughts.close())
        self._reader.is_over = True
        return events + self._read("")

    def _part(self, parts: list[tuple[Any, str]]) -> list[Event]:
        events: list[Event] = []
        for kind, text in parts:
            events += [Thought(text)] if kind == "thought" else self._read(text)
        return events

    def _read(self, text: str) -> list[Event]:
        self._reader.feed(text)
        events = []
        for event in self._steps:
            if event is None:
                break
            events.append(event)
        return events


def schemas_of(tools: list[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The arguments' schemas of tools in OpenAI's form, by name."""
    functions = [tool["function"] for tool in tools]
    return {function["name"]: function.get("parameters") or {} for function in functions}


def _answer(calls: Calls, form: ReplyForm, call_form: CallForm | None) -> Steps[None]:
    reader, drops = calls.reader, call_form is not None
    closer = ""
    if form.answer is not None:
        closer = yield from _opened(reader, form.answer.start, form.answer.end)
    if form.speaker:
        yield from _leave_out(reader, form.speaker)
    if isinstance(call_form, LlamaCalls) and (yield from reader.peek()):
        reader.keep()
        yield from calls.attempt(call_form.read(calls, ""))
    markers = (*(call_form.markers if call_form else ()), *((f"\n{closer}", closer) if closer else ()))
    if not markers:
        yield from _all(reader)
        return
    while marker := (yield from reader.until(markers, Content, drops)):
        if call_form is not None and marker in call_form.markers:
            reader.keep(len(marker))
            yield from calls.attempt(call_form.read(calls, marker))
            yield from _blank_end(reader)


def _all(reader: Reader) -> Steps[None]:
    """Everything is answer."""
    while (yield from reader.peek()):
        text, reader.place = reader.text[reader.place :], len(reader.text)
        yield Content(text)


def _opened(reader: Reader, start: str, end: str) -> Steps[str]:
    """The answer's closing tag, where it begins with the opening one, which is left out."""
    reader.keep()
    yield from reader.spaces()
    if not (yield from reader.accept((start,))):
        reader.place -= len(reader.take_kept())
        return ""
    reader.kept = None
    yield from reader.accept(("\n",))
    return end


def _leave_out(reader: Reader, text: str) -> Steps[None]:
    """A text that comes next, with the whitespace before it; where it doesn't come, that stays."""
    reader.keep()
    yield from reader.spaces()
    if not (yield from reader.accept((text,))):
        reader.place -= len(reader.take_kept())
    reader.kept = None


def _blank_end(reader: Reader) -> Steps[None]:
    """Whitespace after a call is left out where nothing else comes, or another call."""
    reader.keep()
    if (yield from reader.spaces()):
        reader.place -= len(reader.take_kept())
    reader.kept = None


def _new_id(length: int) -> str:
    if length:
        return "".join(secrets.choice(_LETTERS) for _ in range(length))
    return "call_" + secrets.token_hex(12)
