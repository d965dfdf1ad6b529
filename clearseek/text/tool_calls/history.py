"""Calls of earlier turns in the form in which a chat template can write them.

Most templates take arguments as a mapping, and calls beside a text. DeepSeek-R1's own, and those made after it, want
arguments as JSON text and write calls only of a message whose content is null.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_JOINS_ARGUMENTS = re.compile(r"(?:\['arguments'\]|\.arguments)\s*\+")
_ASKS_KIND = re.compile(r"arguments\s+is\s+(?:not\s+)?(?:string|mapping)")
_CALLS_WITHOUT_CONTENT = re.compile(r"'assistant'\s+and\s+message\['content'\] is none")


def fit_calls(messages: Sequence[Mapping[str, Any]], template: str) -> list[dict[str, Any]]:
    """The messages, those with calls changed to what the source of a template reads; nothing of them is lost."""
    wants_text = bool(_JOINS_ARGUMENTS.search(template)) and not _ASKS_KIND.search(template)
    wants_null = calls_without_content(template)
    fitted: list[dict[str, Any]] = []
    for message in messages:
        if not message.get("tool_calls"):
            fitted.append(dict(message))
            continue
        calls = [_with_text(call) if wants_text else call for call in message["tool_calls"]]
        content = message.get("content")
        if wants_null and content:
            fitted.append({name: value for name, value in message.items() if name != "tool_calls"})
        fitted.append({**message, "tool_calls": calls, "content": None if wants_null else content})
    return fitted


def calls_without_content(template: str) -> bool:
    """Whether a template writes calls of messages alone whose content is null."""
    return bool(_CALLS_WITHOUT_CONTENT.search(template))


def _with_text(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call["function"]
    arguments = function["arguments"]
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}
