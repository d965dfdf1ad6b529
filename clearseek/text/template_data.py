"""What a chat template sees of a conversation: plain JSON values under the names that templates read.

As transformers' `render_jinja_template` prepares them (5.23): keys without a value are left out, and a
thought is found under each of its names.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from clearseek.config.errors import InputError

REASONING_FIELDS = ("reasoning_content", "thinking", "reasoning")
_CONTINUED = "CONTINUE_FINAL_MESSAGE_TAG "


def plain_messages(messages: Sequence[Mapping[str, Any]], has_nulls: bool = False) -> list[dict[str, Any]]:
    """The messages as templates see them. Raises InputError where one is not a mapping or holds no JSON.

    `has_nulls`: the template tells calls by a content that is null, which then is not left out.
    """
    seen = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InputError(f"messages[{index}] must be a table of role and content, not {message!r:.60}")
        kept = ("content",) if has_nulls and message.get("tool_calls") else ()
        given = {key: value for key, value in message.items() if value is not None or key in kept}
        seen.append(_with_thought(plain_value(given, f"messages[{index}]")))
    return seen


def plain_value(value: Any, place: str) -> Any:
    """A fresh copy of JSON data, subclasses made plain; raises InputError naming `place` for anything else."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {plain_value(key, place): plain_value(item, f"{place}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain_value(item, place) for item in value)
    if isinstance(value, str):  # subclasses, such as enumerations, as what they are underneath
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    if isinstance(value, float):
        return float.__float__(value)
    raise InputError(f"{place}: a chat template takes JSON values, not {type(value).__name__}")


def mark_continued(messages: list[dict[str, Any]]) -> str:
    """Mark where the last message's text ends, in place; returns that text. Raises InputError without one."""
    content = messages[-1].get("content") if messages else None
    if isinstance(content, list):
        part = next((part for part in reversed(content) if isinstance(part, dict) and "text" in part), {})
        text, holder, key = part.get("text"), part, "text"
    else:
        text, holder, key = content, messages[-1] if messages else {}, "content"
    if not isinstance(text, str):
        raise InputError("continue_final_message: the last message has no text to continue")
    holder[key] = text + _CONTINUED
    return text


def cut_continued(rendered: str, text: str) -> str:
    """A rendered conversation up to the mark, which ends the last message's `text`."""
    place = rendered.rfind(_CONTINUED.strip())
    if place < 0 or text.strip() not in rendered:
        raise InputError("continue_final_message: the chat template does not write the last message as it is")
    kept = rendered[:place]
    return kept if rendered.startswith(_CONTINUED, place) else kept.rstrip()


def _with_thought(message: dict[str, Any]) -> dict[str, Any]:
    thought = next((message[name] for name in REASONING_FIELDS if message.get(name) is not None), None)
    return message if thought is None else {"thinking": thought, **message, "reasoning_content": thought}
