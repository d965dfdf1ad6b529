"""The grammar of an answer with strict tools: any text is let through, and of calls those that obey their schema."""

import json

import pytest

from clearseek.config.errors import InputError
from clearseek.text.tool_calls.events import Gathered
from clearseek.text.tool_calls.free import free_calls
from clearseek.text.tool_calls.parser import ReplyParser
from clearseek.text.tool_calls.recognise import ReplyForm
from tests.engine.call_grammars import SAY, WRITING, accepts, say, tokenizer_with, walk
from tests.text.tool_calls.replies import FORMS

pytest.importorskip("llguidance")
jsonschema_rs = pytest.importorskip("jsonschema_rs")
ENUM = {
    "say": {**SAY["say"], "properties": {"text": {"enum": ["ja", "nein"]}}, "additionalProperties": False}
}
FINAL = "<|channel|>final<|message|>"


def answer(name: str, text: str) -> str:
    return FINAL + text if name == "harmony" else text


def with_text(name: str, call: str) -> str:
    """A call after some words, where a family can write that."""
    if name == "harmony":
        return f"<|channel|>commentary<|message|>I look.<|end|><|start|>assistant{call}"
    return call if name == "llama" else f"I look <at> it.\n{call}"


@pytest.mark.parametrize("as_tokens", [False, True])
@pytest.mark.parametrize("name", WRITING)
def test_answers_are_free_and_calls_are_not(name: str, as_tokens: bool) -> None:
    form = FORMS[name]
    tokenizer = tokenizer_with(form.tokens if as_tokens else ())
    source = free_calls(form, ENUM, tokenizer)
    good, bad = say(name, '{"text": "nein"}', "nein"), say(name, '{"text": "doch"}', "doch")
    for text in ("Hello.\n\n1 < 2 <tool", "안녕 {1}", "<b>你好</b> [TOOL]"):
        assert accepts(tokenizer, source, answer(name, text)), text
    assert accepts(tokenizer, source, good)
    assert accepts(tokenizer, source, with_text(name, good))
    for text in (bad, with_text(name, bad), good.replace("say", "sax"), bad[:-3] + "x"):
        assert not accepts(tokenizer, source, text), text


@pytest.mark.parametrize("name", sorted(set(WRITING) - {"llama", "harmony"}))
def test_one_call_where_no_more_are_wanted(name: str) -> None:
    tokenizer = tokenizer_with(FORMS[name].tokens)
    call = say(name, '{"text": "ja"}', "ja")
    assert accepts(tokenizer, free_calls(FORMS[name], ENUM, tokenizer), f"{call} and {call}")
    assert not accepts(
        tokenizer, free_calls(FORMS[name], ENUM, tokenizer, is_parallel=False), f"{call} and {call}"
    )


@pytest.mark.parametrize("as_tokens", [False, True])
@pytest.mark.parametrize("name", ["hermes", "dsml", "mistral", "llama", "harmony"])
def test_whatever_is_let_through_is_read_so(name: str, as_tokens: bool) -> None:
    form, told = FORMS[name], 0
    tokenizer = tokenizer_with(form.tokens if as_tokens else ())
    source = free_calls(form, ENUM, tokenizer)
    for seed in range(6):
        text = walk(tokenizer, source, seed)
        parser = ReplyParser(form, False, ENUM)
        reply = Gathered().add(parser.feed(text or "") + parser.finish())
        assert (reply.malformed, text is None and not reply.calls) in (("", True), ("", False)), text
        for call in reply.calls:
            jsonschema_rs.validate(ENUM[call.name], json.loads(call.arguments))
        told += text is not None
    assert told >= 3


def test_a_model_whose_way_is_not_known_can_not_be_held() -> None:
    with pytest.raises(InputError, match="shows no way"):
        free_calls(ReplyForm(), SAY, tokenizer_with(()))
