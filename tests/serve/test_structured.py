"""vLLM's `structured_outputs` in chats and completions: obeyed, or refused for that request alone."""

import json
import re
from importlib.util import find_spec

import httpx
import pytest

from clearseek.engine.grammar import Grammar
from clearseek.serve.registry import Registry
from tests.serve.live import live, tiny_served
from tests.serve.scripted import scripted_model as scripted_model_of

pytestmark = pytest.mark.skipif(find_spec("llguidance") is None, reason="llguidance is absent")

SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer", "maximum": 99, "minimum": 0}},
    "required": ["sum"],
    "additionalProperties": False,
}
FORMS = [
    ({"json": SCHEMA}, lambda text: set(json.loads(text)) == {"sum"}),
    ({"json": json.dumps(SCHEMA)}, lambda text: set(json.loads(text)) == {"sum"}),
    ({"regex": r"1[0-9]: (yes|no)"}, lambda text: re.fullmatch(r"1[0-9]: (yes|no)", text)),
    ({"choice": ["17", "18", "seventeen"]}, lambda text: text in ("17", "18", "seventeen")),
    ({"grammar": 'start: "(" start ")" | "x"'}, lambda text: re.fullmatch(r"\(*x\)*", text)),
]
ASKED = {
    "/v1/chat/completions": {
        "messages": [{"role": "user", "content": "12 + 5?"}], "thinking": {"type": "disabled"},
    },
    "/v1/completions": {"prompt": "12 + 5 ="},
}  # fmt: skip


def post(server, path, wanted, **more):
    body = {**ASKED[path], "max_tokens": 100, "temperature": 1.0, "seed": 3, "structured_outputs": wanted}
    return httpx.post(server + path, json=body | more, timeout=30)


def text_of(answer):
    (choice,) = answer.raise_for_status().json()["choices"]
    return choice["text"] if "text" in choice else choice["message"]["content"]


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(("wanted", "obeys"), FORMS, ids=lambda value: str(value)[:20])
def test_every_form_is_obeyed(server, path, wanted, obeys):
    for seed in range(3):
        answer = post(server, path, wanted, seed=seed)
        if answer.json()["choices"][0]["finish_reason"] == "stop":
            assert obeys(text_of(answer)), text_of(answer)
        else:
            assert "grammar" in wanted  # whose brackets need not end


@pytest.mark.parametrize("path", ASKED)
def test_one_that_becomes_too_complex_is_the_clients_to_make_simpler(server, path, monkeypatch):
    """It was taken, and is found out while the answer is written."""
    note = Grammar.note

    def too_much(self, token):
        note(self, token)
        monkeypatch.setattr("clearseek.engine.grammar._SECONDS", 0.0)

    monkeypatch.setattr(Grammar, "note", too_much)
    answer = post(server, path, {"regex": "[a-z]{300}"})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert "constraint: the regex took more than 0 s to follow; make it simpler" in answer.text
    monkeypatch.undo()
    assert text_of(post(server, path, {"choice": ["17"]})) == "17"


def test_json_object_is_any(server):
    for path in ASKED:
        answer = post(server, path, {"json_object": True}, max_tokens=200)
        assert text_of(answer).lstrip().startswith("{")


def test_a_thought_comes_first_where_the_prompt_opened_one(server, tokenizer):
    opened = [*tokenizer.encode_plain("12 + 5?"), tokenizer.think_start_id]
    asked = {"max_tokens": 150, "return_token_ids": True, "logit_bias": {str(tokenizer.think_end_id): 2.5}}
    answer = post(server, "/v1/completions", {"choice": ["17"]}, prompt=opened, **asked)
    tokens = answer.raise_for_status().json()["choices"][0]["token_ids"]
    thought = tokens[: tokens.index(tokenizer.think_end_id)]
    assert len(thought) > 1
    assert tokenizer.decode(tokens[len(thought) + 1 : -1]) == "17"
    closed = post(server, "/v1/completions", {"choice": ["17"]}, prompt=[*opened, tokenizer.think_end_id])
    assert text_of(closed) == "17"


WRONG = [
    ({}, "structured_outputs: it asks for nothing; give one of json, json_object, regex, choice, grammar"),
    ({"json_object": False}, "it asks for nothing"),
    ({"regex": "a", "choice": ["a"]}, "it asks for regex and choice"),
    ({"regex": "(["}, "constraint: the regex can't be used"),
    ({"grammar": "nonsense ::= x"}, "constraint: the lark can't be used"),
    ({"json": {"type": "nothing"}}, "constraint: the json_schema can't be used"),
    ({"choice": []}, "a choice needs a list of texts"),
    ({"json": {"type": "integer", "minimum": 3, "maximum": 2}}, "constraint:"),
]


@pytest.mark.parametrize("path", ASKED)
@pytest.mark.parametrize(("wanted", "message"), WRONG, ids=str)
def test_what_can_t_be_obeyed_is_refused_for_that_request_alone(server, path, wanted, message):
    answer = post(server, path, wanted)
    assert answer.status_code == 400, answer.text
    assert message in answer.json()["error"]["message"]
    assert text_of(post(server, path, {"choice": ["17"]})) == "17"


def test_a_form_that_is_not_known_is_refused_with_the_nearest(server):
    answer = post(server, "/v1/completions", {"regexp": "a"})
    assert answer.status_code == 400
    assert "regex" in answer.json()["error"]["message"]


def test_two_words_on_one_answer_are_refused(server):
    both = post(server, "/v1/chat/completions", {"regex": "a"}, response_format={"type": "json_object"})
    assert both.status_code == 400
    assert "response_format says already" in both.json()["error"]["message"]


def test_beside_tools_it_is_json_alone(hermes):
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    with live(Registry([tiny_served(hermes)])) as server:
        refused = post(server, "/v1/chat/completions", {"regex": "a"}, tools=tools)
        assert refused.status_code == 400
        assert "beside tools it can be json alone" in refused.json()["error"]["message"]
        left_out = post(server, "/v1/chat/completions", {"regex": "a"}, tools=tools, tool_choice="none")
        assert text_of(left_out) in ("a", "")  # it may think to its end


@pytest.mark.parametrize("path", ASKED)
def test_what_alone_can_come_next_may_be_put_there(scripted, scripted_model, path):
    for asked in ({"fast_forward": True}, {"fast_forward": False}, {}):
        post(scripted, path, {"json": SCHEMA, **asked}).raise_for_status()
    told = [request.sampling.constraint.fast_forward for request in scripted_model[1]]
    assert told == [True, False, False]


def test_calls_are_put_there_too_where_the_answer_is(hermes):
    model = scripted_model_of(hermes, "12 + 5 = 17</think>{}")
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    with live(Registry([model])) as server:
        for choice in ("auto", "required"):
            wanted = {"json": SCHEMA, "fast_forward": True}
            post(server, "/v1/chat/completions", wanted, tools=tools, tool_choice=choice).raise_for_status()
    assert [request.sampling.constraint.fast_forward for request in model.service.asked] == [True, True]


def test_the_description_has_it(server):
    description = httpx.get(f"{server}/openapi.json").json()["components"]["schemas"]
    assert set(description["StructuredOutputs"]["properties"]) == {
        "json", "json_object", "regex", "choice", "grammar", "fast_forward",
    }  # fmt: skip
    for body in "ChatRequest", "CompletionRequest":
        assert "structured_outputs" in description[body]["properties"]
