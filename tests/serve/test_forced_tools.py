"""A model of random weights is held to calls, by OpenAI's client: required, one by name, one or several, strict."""

import json

import httpx
import openai
import pytest

from clearseek.serve.registry import Registry
from tests.serve.live import live, tiny_served
from tests.serve.scripted import scripted_model

SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["서울", "北京"]}, "wet": {"type": "boolean"}},
    "required": ["city", "wet"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in ("weather", "forecast")
]


@pytest.fixture(scope="module")
def client(hermes):
    with (
        live(Registry([tiny_served(hermes, context=2048)])) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="x") as client,
    ):
        yield client


def choice_of(client, seed=3, **settings):
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "?"}], seed=seed, max_tokens=600,
        extra_body={"thinking_token_budget": 4}, **settings,
    )  # fmt: skip
    return answer.choices[0]


def calls_of(client, **settings):
    choice = choice_of(client, tools=TOOLS, **settings)
    assert choice.message.tool_calls, choice
    for call in (calls := choice.message.tool_calls):
        arguments = json.loads(call.function.arguments)
        assert set(arguments) == {"city", "wet"}
        assert (arguments["city"] in ("서울", "北京"), type(arguments["wet"])) == (True, bool)
    assert (choice.finish_reason, choice.message.content.strip()) == ("tool_calls", "")
    return [call.function.name for call in calls]


def test_a_call_is_required(client):
    names = calls_of(client, tool_choice="required", parallel_tool_calls=False)
    assert len(names) == 1


def test_a_call_is_named(client):
    choice = {"type": "function", "function": {"name": "forecast"}}
    assert calls_of(client, tool_choice=choice) == ["forecast"]


STRICT = [{"type": "function", "function": {**TOOLS[0]["function"], "strict": True}}]


def test_a_strict_call_or_an_answer_of_its_schema(client):
    wanted = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"enum": ["네", "不"]}}}
    answers, calls, seeds = [], [], iter(range(30))
    while not (answers and calls):
        message = choice_of(
            client, next(seeds), tools=STRICT, response_format=wanted, parallel_tool_calls=False
        ).message
        answers += [] if message.tool_calls else [json.loads(message.content)]
        calls += [json.loads(call.function.arguments) for call in message.tool_calls or ()]
    assert set(answers) <= {"네", "不"}
    assert all(call["city"] in ("서울", "北京") and type(call["wet"]) is bool for call in calls)


@pytest.mark.parametrize("strict", [True, False, None])
def test_every_api_holds_strict_tools_to_their_schemas(hermes, strict):
    model = scripted_model(hermes, "t</think>ok")
    schema = {"name": "weather", "description": "d", "strict": strict}
    question = {"model": "tiny", "messages": [{"role": "user", "content": "?"}], "max_tokens": 9}
    chat = {"type": "function", "function": {**schema, "parameters": SCHEMA}}
    asked = {
        "/v1/chat/completions": {**question, "tools": [chat]},
        "/v1/messages": {**question, "tools": [{**schema, "input_schema": SCHEMA}]},
        "/v1/responses": {
            "model": "tiny",
            "input": "?",
            "tools": [{"type": "function", **schema, "parameters": SCHEMA}],
        },
    }
    with live(Registry([model])) as address:
        for path, body in asked.items():
            answer = httpx.post(address + path, json=body)
            assert answer.status_code == 200, answer.text
            constraint = model.service.asked[-1].sampling.constraint
            assert (constraint is not None and "北京" in constraint.source) is bool(strict), path
