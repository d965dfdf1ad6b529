"""The grammar of a forced call: whatever it lets through is read as calls of the given tools, and nothing else is."""

# ruff: noqa: E501  (replies stand here as models write them)

import json

import numpy as np
import pytest

from clearseek.config.errors import InputError
from clearseek.engine.constraint import lark
from clearseek.engine.grammar import Grammars
from clearseek.text.tokenizer import Tokenizer
from clearseek.text.tool_calls.events import Gathered
from clearseek.text.tool_calls.forced import forced_calls
from clearseek.text.tool_calls.parser import ReplyParser
from clearseek.text.tool_calls.recognise import ReplyForm
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
WRITING = sorted(set(FORMS) - {"none"})


def tokenizer_with(texts: tuple[str, ...]) -> Tokenizer:
    """One that has these texts as special tokens."""
    import tokenizers

    plain = Tokenizer.train(["name arguments parameters city days weather function true false"] * 9, 500)
    backend = tokenizers.Tokenizer.from_str(plain.to_json())
    backend.add_special_tokens([tokenizers.AddedToken(text, special=True) for text in texts])
    return Tokenizer(backend, plain.chat, plain._config)


def walk(tokenizer: Tokenizer, source: str, seed: int) -> str | None:
    """A text that the grammar lets through, drawn at random; None: it did not end."""
    grammar = Grammars(tokenizer, tokenizer.stop_ids).start(lark(source))
    random, said = np.random.default_rng(seed), []
    for _ in range(600):
        allowed = grammar.allowed()
        assert allowed is not None, grammar.error
        ids = np.flatnonzero(allowed)
        token = int(random.choice(ids))
        if token in tokenizer.stop_ids or tokenizer.eos_id in ids:
            return tokenizer.decode(said)
        said.append(token)
        grammar.note(token)
    return None


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


def accepts(tokenizer: Tokenizer, source: str, text: str) -> bool:
    grammar = Grammars(tokenizer, tokenizer.stop_ids).start(lark(source))
    for token in tokenizer.encode(text):
        allowed = grammar.allowed()
        if allowed is None or not allowed[token]:
            return False
        grammar.note(token)
    allowed = grammar.allowed()
    return allowed is not None and bool(allowed[tokenizer.eos_id])


SAY = {"say": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}


def say(name: str, said: str = '{"text": "a <b> c"}', tagged: str = "a <b> c") -> str:
    """One call of `say` as a family writes it."""
    texts = {
        "hermes": f'<tool_call>\n{{"name": "say", "arguments": {said}}}\n</tool_call>',
        "hunyuan": f'<tool_calls>[{{"name": "say", "arguments": {said}}}]</tool_calls>',
        "deepseek": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>say<｜tool▁sep｜>{said}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "dsml": f'<｜DSML｜function_calls>\n<｜DSML｜invoke name="say">\n<｜DSML｜parameter name="text" string="true">{tagged}'
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        "xml": f"<tool_call>\n<function=say>\n<parameter=text>\n{tagged}\n</parameter>\n</function>\n</tool_call>",
        "hy3": f"<tool_calls:o>\n<tool_call:o>say<tool_sep:o>\n<arg_key:o>text</arg_key:o>\n<arg_value:o>{tagged}</arg_value:o>\n"
        "</tool_call:o>\n</tool_calls:o>",
        "mistral": f"[TOOL_CALLS]say[ARGS]{said}",
        "llama": f'{{"name": "say", "parameters": {said}}}',
        "harmony": f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.say "
        f"<|constrain|>json<|message|>{said}",
        "pangu": f'[unused11][{{"name": "say", "arguments": {said}}}][unused12]',
        "mistral_list": f'[TOOL_CALLS][{{"name": "say", "arguments": {said}}}]',
        "r1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>say\n```json\n"
        f"{said}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    }  # fmt: skip
    texts |= {"ernie": texts["hermes"], "dsml_v4": texts["dsml"].replace("function_calls", "tool_calls")}
    return texts[name]


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
