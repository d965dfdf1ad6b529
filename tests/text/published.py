"""Published chat templates and vocabularies, from a copy that `make published` fetches; conversations for them.

They come inside the source distribution of llama-cpp-python and are never committed.
"""

import os
from pathlib import Path
from typing import Any

import pytest

PLACE = Path(os.environ.get("CLEARSEEK_PUBLISHED") or Path(__file__).parents[2] / ".published")
TEMPLATES = sorted(PLACE.glob("templates/*.jinja"))
ABSENT = (
    f"no published chat templates and vocabularies in {PLACE}: `make published` fetches them, "
    "CLEARSEEK_PUBLISHED names another place"
)

SYSTEM = {"role": "system", "content": "You are terse.\n간단히 답하라. "}
USER = {"role": "user", "content": " 12 + 5 < 17? \n"}
ASK = {"role": "user", "content": "그럼 北京 weather 🙂?"}
ANSWER = {"role": "assistant", "content": "17 이다."}
THOUGHT = {"role": "assistant", "content": "<think>\nhmm\n</think>\n\n17."}
REASONED = {"role": "assistant", "content": "17.", "reasoning_content": "생각: 12+5"}
ARGUMENTS = {"city": "서울", "days": 2, "opts": {"unit": None}, "tags": ["a", "b"]}


def called(arguments: Any, **more: Any) -> dict[str, Any]:
    """An assistant's message that calls one tool."""
    function = {"name": "get_weather", "arguments": arguments}
    call = {"id": "call00001", "type": "function", "function": function}
    return {"role": "assistant", "content": "", "tool_calls": [call], **more}


CALL = called(ARGUMENTS)
NOW = {"id": "call00002", "type": "function", "function": {"name": "now", "arguments": {}}}
TWO_CALLS = {"role": "assistant", "content": "둘", "tool_calls": [*CALL["tool_calls"], NOW]}
RESULT = {"role": "tool", "content": "맑음 <20°>", "tool_call_id": "call00001", "name": "get_weather"}
SECOND_RESULT = {"role": "tool", "content": '{"t": 3}', "tool_call_id": "call00002", "name": "now"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "part 1"}, {"type": "text", "text": " part 2"}]}

CONVERSATIONS: dict[str, list[dict[str, Any]]] = {
    "a question": [USER],
    "system and question": [SYSTEM, USER],
    "two turns": [USER, ANSWER, ASK],
    "answered": [USER, ANSWER],
    "a thought in the text": [SYSTEM, USER, THOUGHT, ASK],
    "a thought apart": [USER, REASONED, ASK],
    "a thought apart, answered": [USER, REASONED],
    "a tool's result, answered": [ASK, CALL, RESULT, ANSWER],
    "a tool's result": [ASK, CALL, RESULT],
    "arguments as text": [ASK, called('{"city": "서울"}'), RESULT],
    "tools and thoughts": [
        SYSTEM, ASK, called(ARGUMENTS, content=None, reasoning_content="need weather"), RESULT, REASONED, USER,
    ],
    "two calls": [ASK, TWO_CALLS, RESULT, SECOND_RESULT],
    "parts": [PARTS],
    "system and parts": [SYSTEM, PARTS, ANSWER],
    "a developer": [{"role": "developer", "content": "D"}, USER],
    "no question": [ANSWER, ANSWER],
    "an empty question": [{"role": "user", "content": ""}],
    "two questions": [USER, ASK],
}  # fmt: skip

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "날씨 & <b>weather</b>",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "description": 'City, "quoted"', "enum": ["서울", "北京"]},
                    "days": {"type": "integer", "default": 3},
                    "opts": {
                        "type": "object",
                        "properties": {"unit": {"type": ["string", "null"]}},
                        "required": [],
                    },
                    "tags": {"type": "array", "items": {"type": "string"}},
                },
                "required": ["city"],
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "now",
            "description": "time",
            "parameters": {"type": "object", "properties": {}},
        },
    },
]

SWITCHES: list[dict[str, Any]] = [
    {},
    {"thinking": True, "enable_thinking": True},
    {"thinking": False, "enable_thinking": False},
    {"reasoning_effort": "high"},
]


def needs_published(path: Path | None = None) -> None:
    """Skip the calling test, with the reason, where the copy or one file of it is absent."""
    if not TEMPLATES or (path is not None and not path.is_file()):
        pytest.skip(ABSENT)
