"""What a source gives: plain documents to learn whole, and conversations whose last answer is learnt.

A row of a data file becomes one or the other by the fields it has; a field that nothing reads is an error.
"""

import difflib
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clearseek.config.errors import InputError

Message = Mapping[str, str]

_ROLES = ("system", "user", "assistant")
_LAYOUTS = (
    ("text",),
    ("messages",),
    ("prompt", "completion"),
    ("prompt", "thought", "answer"),
    ("prompt", "answer"),
)
_KNOWN_FIELDS = tuple(dict.fromkeys(field for layout in _LAYOUTS for field in layout))


@dataclass(frozen=True)
class TextDocument:
    """A text to learn from its first word to its last; `place` says where it comes from."""

    text: str
    place: str

    @cached_property
    def content_hash(self) -> str:
        """sha256 (hex) over the text alone."""
        return _hash(self.text)


@dataclass(frozen=True)
class Conversation:
    """Messages that are read, and the thought and answer that are learnt; `place` says where from."""

    history: tuple[Message, ...]
    thought: str
    answer: str
    place: str

    @cached_property
    def content_hash(self) -> str:
        """sha256 (hex) over the messages, the thought and the answer."""
        return _hash(json.dumps([list(self.history), self.thought, self.answer], sort_keys=True))


Document = TextDocument | Conversation


def document_from_row(row: Any, place: str, ignored_fields: Collection[str] = ()) -> Document:
    """A row of a data file as a document.

    Layouts: `text`; `messages`; `prompt` with `completion` (thought and answer in one text, parted at
    `</think>`); `prompt` with `answer` and, if there is one, `thought`. Raises InputError naming `place` and
    the field.
    """
    if not isinstance(row, Mapping):
        raise InputError(f"{place}: expected an object with fields, found {type(row).__name__}")
    fields = {name: value for name, value in row.items() if name not in ignored_fields}
    if tuple(sorted(fields)) not in {tuple(sorted(layout)) for layout in _LAYOUTS}:
        raise InputError(f"{place}: {_layout_problem(fields)}")
    if "text" in fields:
        return TextDocument(_text(fields, "text", place), place)
    if "messages" in fields:
        return _conversation(_messages(fields["messages"], place, "messages"), place)
    history = _history(fields["prompt"], place)
    if "completion" in fields:
        return _conversation((*history, *_completion(fields["completion"], place)), place)
    thought = _text(fields, "thought", place) if "thought" in fields else ""
    return Conversation(history, thought, _text(fields, "answer", place), place)


def _layout_problem(fields: Mapping[str, Any]) -> str:
    unknown = sorted(set(fields) - set(_KNOWN_FIELDS))
    if unknown:
        near = difflib.get_close_matches(unknown[0], _KNOWN_FIELDS, 1)
        hint = f"did you mean {near[0]!r}?" if near else "name it in ignored_fields to leave it out"
        return f"unknown field {unknown[0]!r}; {hint}"
    layouts = " | ".join("+".join(layout) for layout in _LAYOUTS)
    return f"fields {'+'.join(sorted(fields)) or '(none)'} make no document; expected one of {layouts}"


def _text(fields: Mapping[str, Any], name: str, place: str) -> str:
    value = fields[name]
    if not isinstance(value, str):
        raise InputError(f"{place}: {name} must be text, found {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise InputError(f"{place}: {name} holds half a character (a lone surrogate)") from None
    return value


def _history(prompt: Any, place: str) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return ({"role": "user", "content": _text({"prompt": prompt}, "prompt", place)},)
    return _messages(prompt, place, "prompt")


def _completion(completion: Any, place: str) -> tuple[Message, ...]:
    if isinstance(completion, str):
        return ({"role": "assistant", "content": _text({"completion": completion}, "completion", place)},)
    return _messages(completion, place, "completion")


def _messages(messages: Any, place: str, name: str) -> tuple[Message, ...]:
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise InputError(f"{place}: {name} must be a list of messages with role and content")
    return tuple(_message(message, f"{place}, {name}[{index}]") for index, message in enumerate(messages))


def _message(message: Any, place: str) -> Message:
    if not isinstance(message, Mapping) or not {"role", "content"} <= set(message):
        raise InputError(f"{place}: a message needs role and content")
    given = {name: value for name, value in message.items() if value is not None}
    unknown = sorted(set(given) - {"role", "content", "reasoning_content"})
    if unknown:
        raise InputError(f"{place}: unknown field {unknown[0]!r} in a message")
    if given.get("role") not in _ROLES:
        raise InputError(f"{place}: role must be one of {', '.join(_ROLES)}, found {given.get('role')!r}")
    return {
        name: _text(given, name, place) for name in ("role", "content", "reasoning_content") if name in given
    }


def _conversation(messages: tuple[Message, ...], place: str) -> Conversation:
    *history, last = messages
    if last["role"] != "assistant":
        raise InputError(f"{place}: the last message must be the assistant's, for it is what is learnt")
    if not history:
        raise InputError(f"{place}: a conversation needs a message before the assistant's")
    thought, tag, answer = last["content"].partition("</think>")
    if not tag:
        thought, answer = last.get("reasoning_content", ""), last["content"]
    return Conversation(tuple(history), thought.removeprefix("<think>"), answer, place)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
