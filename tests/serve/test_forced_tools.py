"""A model of random weights is held to calls, by OpenAI's client: required, one by name, one or several."""

import json

import openai
import pytest

from clearseek.serve.registry import Registry
from tests.serve.live import live, tiny_served

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


def calls_of(client, **settings):
    answer = client.chat.completions.create(
        model="tiny", messages=[{"role": "user", "content": "?"}], tools=TOOLS, seed=3, max_tokens=600,
        extra_body={"thinking_token_budget": 4}, **settings,
    )  # fmt: skip
    choice = answer.choices[0]
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
