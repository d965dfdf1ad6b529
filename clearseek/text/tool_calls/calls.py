"""The calls of one reply as they are read: their numbers and ids, and what the formats have in common."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from clearseek.text.tool_calls.events import CallArguments, CallEnd, CallStart
from clearseek.text.tool_calls.json_value import JsonValue
from clearseek.text.tool_calls.reader import NotACall, Reader, Steps

LONGEST_NAME = 256  # characters; OpenAI's may have 64
_NAME = re.compile(rf"[^\s\x00-\x1f\x7f\ud800-\udfff]{{1,{LONGEST_NAME}}}")
MakeId = Callable[[int], str]
Schemas = Mapping[str, Mapping[str, Any]]


class Calls:
    """Makes the events of calls. `schemas`: the arguments' schema of each tool that may be called, by name."""

    def __init__(self, reader: Reader, schemas: Schemas, make_id: MakeId) -> None:
        self.reader, self.schemas, self._make_id = reader, schemas, make_id
        self._count, self._is_open = 0, False

    def start(self, name: str, id: str = "") -> CallStart:
        """A call; from here on it can't be taken back."""
        self.reader.kept = None
        self._is_open = True
        return CallStart(self._count, id or self._make_id(self._count), name)

    def arguments(self, text: str) -> CallArguments:
        """More arguments of the call that was started."""
        return CallArguments(self._count, text)

    def end(self, is_whole: bool = True) -> CallEnd:
        """The call's end; what comes next may turn out not to belong to calls."""
        self._is_open = False
        self._count += 1
        self.reader.keep()
        return CallEnd(self._count - 1, is_whole)

    def attempt(self, steps: Steps[None]) -> Steps[None]:
        """Read calls; where they turn out to be none, give out what can't be read as malformed."""
        try:
            yield from steps
        except NotACall:
            if self._is_open:
                yield self.end(is_whole=False)
            yield from self.reader.failed()
        self.reader.kept = None


def checked_name(text: str) -> str:
    """A name without spaces around it; `NotACall` where it can't be one."""
    name = text.strip()
    if not _NAME.fullmatch(name):
        raise NotACall
    return name


def stream_object(calls: Calls) -> Steps[None]:
    """A JSON object that comes here, as arguments of the call that was started; ends the call."""
    value, is_whole = JsonValue(calls.reader), False
    steps = value.steps()
    while not is_whole:
        try:
            step = next(steps)
        except StopIteration:
            is_whole = True
        except NotACall:
            break
        if text := value.take():
            yield calls.arguments(text)
        if not is_whole:
            yield step
    if text := value.take():
        yield calls.arguments(text)
    yield calls.end(is_whole)
    if not is_whole:
        raise NotACall


def json_call(calls: Calls, needs_arguments: bool = False, knows_name: bool = False) -> Steps[None]:
    """A JSON object with a name and arguments, in any order.

    `needs_arguments`: without them it is no call, else one without arguments; `knows_name`: it has to name a tool.
    """
    reader, name, held, is_done = calls.reader, "", "", False
    yield from reader.spaces()
    yield from reader.require("{")
    while True:
        key = yield from _string(reader)
        yield from reader.spaces()
        yield from reader.require(":")
        following = yield from reader.spaces()
        if key == "name" and not name:
            name = checked_name((yield from _string(reader)))
            if knows_name and name not in calls.schemas:
                raise NotACall
            if held:
                yield from _whole_call(calls, name, held)
                is_done = True
        elif key in ("arguments", "parameters") and not (held or is_done):
            if name and following == "{":
                yield calls.start(name)
                yield from stream_object(calls)
                is_done = True
            else:
                held = yield from _held_object(reader, following)
                if name:
                    yield from _whole_call(calls, name, held)
                    is_done = True
        else:
            yield from _any_value(reader, following)
        yield from reader.spaces()
        if (yield from reader.require(",", "}")) == "}":
            break
    if not is_done:
        if not name or needs_arguments:
            raise NotACall
        yield from _whole_call(calls, name, "{}")


def _whole_call(calls: Calls, name: str, arguments: str) -> Steps[None]:
    yield calls.start(name)
    yield calls.arguments(arguments)
    yield calls.end()


def _string(reader: Reader) -> Steps[str]:
    yield from reader.spaces()
    value = JsonValue(reader)
    yield from value.string()
    return str(json.loads(value.take()))


def _held_object(reader: Reader, following: str) -> Steps[str]:
    """An object as JSON text; some models write that text once more as a string."""
    if following == "{":
        value = JsonValue(reader)
        yield from value.steps()
        return value.take()
    text = yield from _string(reader)
    if not is_object(text):
        raise NotACall
    return text


def _any_value(reader: Reader, following: str) -> Steps[None]:
    value = JsonValue(reader)
    if following == '"':
        yield from value.string()
    elif following and following in "{[":
        yield from value.steps()
    else:
        yield from value.scalar()


def is_object(text: str) -> bool:
    """Whether a text is a JSON object, and can be written."""
    try:
        text.encode()
        return isinstance(json.loads(text, parse_constant=_refuse), dict)
    except (ValueError, RecursionError):
        return False


def _refuse(name: str) -> None:
    raise ValueError(name)
