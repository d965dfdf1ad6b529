"""Replies with thoughts and calls: the cut of the stream never changes what comes out."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.text.tool_calls.events import (
    CallArguments,
    CallEnd,
    CallStart,
    Content,
    Gathered,
    Malformed,
    Thought,
)
from clearseek.text.tool_calls.parser import ReplyParser
from tests.text.tool_calls.replies import FORMS, SCHEMAS, TEXTS, arguments, cut, gathered, parse

NAMES = sorted(FORMS)


@pytest.mark.parametrize("name", NAMES)
def test_every_form_is_read(name: str) -> None:
    reply = gathered(FORMS[name], TEXTS[name], inside=name != "hunyuan")
    assert reply.thought.strip() == "t"
    assert reply.content.strip() == ("" if name == "llama" else "ok")
    assert not reply.malformed
    calls = [("weather", {"city": "서울", "days": 2}, True), ("now", {}, True)]
    assert arguments(reply) == ([] if name == "none" else calls)


@st.composite
def broken_replies(draw: st.DrawFn) -> tuple[str, str]:
    """Texts that are like replies: parts of them left out, repeated, put elsewhere, or of another family."""
    name = draw(st.sampled_from(NAMES))
    parts = re.findall(r"<[^<>]*>|\[[A-Z_/]+\]|\w+|\s|[^\w\s]", TEXTS[name])
    start = draw(st.integers(0, len(parts)))
    kept = parts[:start]
    for part in parts[start:]:
        kept += [part] * draw(st.sampled_from([0, 1, 1, 1, 1, 1, 2]))
    junk = st.sampled_from(
        ['"', "\\", "\\u12", "{", "}", "[", "]", "\n", " ", "<", "</", "null", "-1.5e3", "tru", "🙂", ","]
    )
    for _ in range(draw(st.integers(0, 3))):
        kept.insert(draw(st.integers(0, len(kept))), draw(junk))
    return name, "".join(kept)


@given(reply=broken_replies(), cuts=st.lists(st.integers(0, 1000), max_size=12), inside=st.booleans())
@settings(max_examples=600, deadline=None)
def test_any_chunking_gives_the_same(reply: tuple[str, str], cuts: list[int], inside: bool) -> None:
    name, text = reply
    whole = parse(FORMS[name], [text], inside)
    assert parse(FORMS[name], list(text), inside) == whole
    assert parse(FORMS[name], cut(text, cuts), inside) == whole


@given(reply=broken_replies(), inside=st.booleans())
@settings(max_examples=400, deadline=None)
def test_what_comes_out_is_sound(reply: tuple[str, str], inside: bool) -> None:
    name, text = reply
    events = parse(FORMS[name], [text], inside)
    open_call, count = None, 0
    for event in events:
        if isinstance(event, CallStart):
            assert (open_call, event.index, event.name) == (None, count, event.name.strip())
            open_call, count = event.index, count + 1
        elif isinstance(event, CallEnd):
            assert open_call == event.index
            open_call = None
        elif isinstance(event, (Thought, Content, Malformed)):
            assert (open_call, event.text != "") == (None, True)
    assert open_call is None
    for call in Gathered().add(events).calls:
        if call.is_whole:
            assert isinstance(json.loads(call.arguments), dict)
            call.arguments.encode()


@pytest.mark.parametrize("name", NAMES)
def test_without_tools_nothing_is_a_call(name: str) -> None:
    reply = gathered(FORMS[name], TEXTS[name], inside=name != "hunyuan", schemas=None)
    assert (reply.calls, reply.thought.strip()) == ([], "t")
    if not FORMS[name].is_harmony and FORMS[name].answer is None:
        assert reply.content == TEXTS[name].split(FORMS[name].thought.end)[-1]


@pytest.mark.parametrize("schemas", [SCHEMAS, None])
def test_who_speaks_is_left_out_at_the_answer_s_beginning_alone(
    schemas: dict[str, dict[str, object]],
) -> None:
    for answer in ("助手：yes 助手：no", "\n助手：yes 助手：no", "<answer>\n助手：yes 助手：no\n</answer>"):
        text = f"<think>\n助手：t\n</think>\n{answer}"
        reply = gathered(FORMS["hunyuan"], text, inside=False, schemas=schemas)
        assert (reply.thought.strip(), reply.content.strip()) == ("助手：t", "yes 助手：no")
    assert gathered(FORMS["hunyuan"], "t</think>助手 helps", schemas=schemas).content == "助手 helps"


@pytest.mark.parametrize(
    ("name", "text", "malformed"),
    [
        ("hermes", "a<tool_call>\nno JSON</tool_call>b", "<tool_call>\n"),
        ("hermes", '<tool_call>{"name": 5}</tool_call>', '<tool_call>{"name": '),
        ("hermes", '<tool_call>{"name": "f", "arguments": [1]}', '<tool_call>{"name": "f", "arguments": '),
        ("hermes", '<tool_call>{"name": "\\ud800", "arguments": {}}', '<tool_call>{"name": "\\ud800"'),
        ("hermes", "<tool_call>", "<tool_call>"),
        ("deepseek", "<｜tool▁calls▁begin｜>x", "<｜tool▁calls▁begin｜>"),
        (
            "dsml",
            '<｜DSML｜function_calls><｜DSML｜invoke name="a b">',
            '<｜DSML｜function_calls><｜DSML｜invoke name="a b">',
        ),
        ("xml", "<tool_call>\n<parameter=a>", "<tool_call>\n"),
        ("mistral", "[TOOL_CALLS]sorry, no", "[TOOL_CALLS]"),
        ("llama", '{"name": "unknown", "parameters": {}}', '{"name": "unknown"'),
    ],
)
def test_what_is_no_call_stays_in_the_answer(name: str, text: str, malformed: str) -> None:
    reply = gathered(FORMS[name], text, inside=False)
    assert (reply.calls, reply.content, reply.malformed) == ([], text, malformed)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("hermes", '<tool_call>{"name": "now", "arguments": {"a": [1, {"b": "c', '{"a": [1, {"b": "c'),
        ("hermes", '<tool_call>{"name": "now", "arguments": {"a": 01}}</tool_call>', '{"a": '),
        ("xml", "<tool_call><function=weather><parameter=city>\nSe", '{"city": "Se'),
        (
            "dsml",
            '<｜DSML｜function_calls><｜DSML｜invoke name="now"><｜DSML｜parameter name="a" string="true">x',
            '{"a": "x',
        ),
    ],
)
def test_a_call_that_breaks_off_is_not_whole(name: str, text: str, said: str) -> None:
    [call] = gathered(FORMS[name], text, inside=False).calls
    assert (call.arguments, call.is_whole) == (said, False)


@pytest.mark.parametrize(
    ("key", "written", "value"),
    [
        ("city", "2", "2"),
        ("city", '\n a"b\\c\n', '\n a"b\\c\n'),
        ("city", "", ""),
        ("days", "2", 2),
        ("days", "two", "two"),
        ("days", "2.5", "2.5"),
        ("tags", '["a", "b"]', ["a", "b"]),
        ("tags", "a", "a"),
        ("unit", "None", None),
        ("unit", "C", "C"),
        ("unit", "7", "7"),
        ("at", '{"x": 1}', {"x": 1}),
        ("unknown", "7", 7),
        ("unknown", "True", True),
        ("unknown", "NaN", "NaN"),
        ("unknown", '"quoted"', '"quoted"'),
    ],
)
def test_values_between_tags_have_the_types_of_the_schema(key: str, written: str, value: object) -> None:
    text = f"<tool_call>\n<function=weather>\n<parameter={key}>\n{written}\n</parameter>\n</function>\n</tool_call>"
    assert arguments(gathered(FORMS["xml"], text, inside=False)) == [("weather", {key: value}, True)]


def test_lines_left_bare_in_a_string_become_json() -> None:
    text = '<tool_call>{"name": "now", "arguments": {"a": "one\ntwo"}}</tool_call>'
    assert arguments(gathered(FORMS["hermes"], text, inside=False)) == [("now", {"a": "one\ntwo"}, True)]


def test_arguments_before_the_name_and_as_text() -> None:
    text = '<tool_call>{"id": [1], "arguments": "{\\"a\\": 1}", "name": "now"}</tool_call>'
    assert arguments(gathered(FORMS["hermes"], text, inside=False)) == [("now", {"a": 1}, True)]


def test_arguments_come_as_they_are_written() -> None:
    parser = ReplyParser(FORMS["hermes"], False, SCHEMAS, str)
    began = parser.feed('<tool_call>{"name": "now", "arguments": {"a')
    assert began == [CallStart(0, "0", "now"), CallArguments(0, '{"a')]
    assert parser.feed("b") == [CallArguments(0, "b")]


def test_a_call_in_a_thought_is_thought() -> None:
    reply = gathered(FORMS["hermes"], "a <tool_call>{}</tool_call></think>b")
    assert (reply.thought, reply.content, reply.calls) == ("a <tool_call>{}</tool_call>", "b", [])
