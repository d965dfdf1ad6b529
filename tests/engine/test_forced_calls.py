"""The grammar of a forced call: whatever it lets through is read as calls of the given tools, and nothing else is."""

# ruff: noqa: E501  (replies stand here as models write them)

import json

import pytest

from clearseek.config.errors import InputError
from clearseek.text.tool_calls.events import Gathered
from clearseek.text.tool_calls.forced import forced_calls
from clearseek.text.tool_calls.parser import ReplyParser
from clearseek.text.tool_calls.recognise import ReplyForm
from tests.engine.call_grammars import SAY, WRITING, accepts, say, tokenizer_with, walk
from tests.text.tool_calls.replies import FORMS

pytest.importorskip("llguidance")
jsonschema_rs = pytest.importorskip("jsonschema_rs")

SCHEMAS = {
    "weather": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "enum": ["서울", "a b"]},
            "days": {"enum": [1, 2]},
            "wet": {"type": "boolean"},
            "at": {"$ref": "#/$defs/place"},
        },
        "required": ["city", "at"],
        "additionalProperties": False,
        "$defs": {"place": {"type": "object", "properties": {"x": {"enum": [True, None]}}, "additionalProperties": False}},
    },
    "now": {"type": "object", "properties": {}, "additionalProperties": False},
}  # fmt: skip


@pytest.mark.parametrize("as_tokens", [False, True])
@pytest.mark.parametrize("name", WRITING)
def test_what_is_let_through_is_a_call(name: str, as_tokens: bool) -> None:
    form = FORMS[name]
    tokenizer = tokenizer_with(form.tokens if as_tokens else ())
    source = forced_calls(form, SCHEMAS, tokenizer, is_parallel=False)
    told = 0
    for seed in range(12):
        text = walk(tokenizer, source, seed)
        if text is None:
            continue
        parser = ReplyParser(form, False, SCHEMAS)
        reply = Gathered().add(parser.feed(text) + parser.finish())
        [call] = reply.calls
        assert (reply.content, reply.malformed, call.is_whole) == ("", "", True), text
        jsonschema_rs.validate(SCHEMAS[call.name], json.loads(call.arguments))
        told += 1
    assert told >= 3


@pytest.mark.parametrize("name", WRITING)
@pytest.mark.parametrize("as_tokens", [False, True])
def test_free_texts_and_nothing_but_calls(name: str, as_tokens: bool) -> None:
    form = FORMS[name]
    tokenizer = tokenizer_with(form.tokens if as_tokens else ())
    source = forced_calls(form, SAY, tokenizer)
    assert accepts(tokenizer, source, say(name))
    assert accepts(tokenizer, source, "\n\n" + say(name))
    assert not accepts(tokenizer, source, say(name).replace("say", "sax"))
    assert not accepts(tokenizer, source, "no")
    assert not accepts(tokenizer, source, "")


def test_a_model_whose_way_is_not_known_can_not_be_forced() -> None:
    with pytest.raises(InputError, match="shows no way"):
        forced_calls(ReplyForm(), SCHEMAS, tokenizer_with(()))
    with pytest.raises(InputError, match="no tools"):
        forced_calls(FORMS["hermes"], {}, tokenizer_with(()))
