"""Tools as OpenAI's client sees them: what a model writes as a call arrives as one, streamed or whole."""

import json

import httpx
import openai
import pytest

from clearseek.serve.registry import Registry
from tests.serve.hermes import CALLS
from tests.serve.live import live
from tests.serve.scripted import scripted_model

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Adds.",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            },
        },
    }
]
QUESTION = [{"role": "user", "content": "12 + 5?"}]


@pytest.fixture(scope="module", params=[1, 3, 1000])
def model(request, hermes):
    return scripted_model(hermes, CALLS, tokens_at_once=request.param)


@pytest.fixture(scope="module")
def client(model):
    with live(Registry([model])) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="x") as client:
        yield client


def ask(client, **settings):
    return client.chat.completions.create(
        **{"model": "tiny", "messages": QUESTION, "tools": TOOLS} | settings
    )


def test_calls_arrive_whole(client):
    choice = ask(client).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content.strip() == "Let me see."
    assert choice.message.reasoning_content == "I add."
    assert [
        (call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls
    ] == [
        ("add", {"a": 12, "b": 5}),
        ("add", {"a": 1, "b": 2}),
    ]
    assert len({call.id for call in choice.message.tool_calls}) == 2


def test_a_stream_says_the_same(client):
    calls, reasons, content = {}, [], ""
    for chunk in ask(client, stream=True):
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        reasons += [choice.finish_reason] if choice.finish_reason else []
        for call in choice.delta.tool_calls or []:
            if call.id:
                calls[call.index] = [call.function.name, ""]
            calls[call.index][1] += call.function.arguments
    assert reasons == ["tool_calls"]
    assert content.strip() == "Let me see."
    assert {index: (name, json.loads(text)) for index, (name, text) in calls.items()} == {
        0: ("add", {"a": 12, "b": 5}),
        1: ("add", {"a": 1, "b": 2}),
    }


def test_one_call_at_a_time_on_request(client):
    (call,) = ask(client, parallel_tool_calls=False).choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"a": 12, "b": 5}


@pytest.mark.parametrize("settings", [{"tool_choice": "none"}, {"tools": openai.NOT_GIVEN}])
def test_without_tools_calls_are_text(client, settings):
    choice = ask(client, **settings).choices[0]
    assert choice.message.tool_calls is None
    assert "<tool_call>" in choice.message.content
    assert choice.finish_reason == "stop"


def test_an_answer_can_be_sent_back_with_its_results(client, model, hermes):
    message = ask(client).choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "17"} for call in message.tool_calls]
    ask(client, messages=[*QUESTION, message, *results])
    prompt = hermes.decode(model.service.asked[-1].prompt)
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 12, "b": 5}}\n</tool_call>' in prompt
    assert prompt.endswith("[tool]17[tool]17[assistant]<think>")
    assert '"description": "Adds."' in prompt


def test_what_is_wrong_with_tools_is_said(client, scripted):
    with pytest.raises(openai.BadRequestError, match="there are no tools to choose from"):
        ask(client, tools=openai.NOT_GIVEN, tool_choice="required")
    with pytest.raises(openai.BadRequestError, match="there is no tool 'subtract'"):
        ask(client, tool_choice={"type": "function", "function": {"name": "subtract"}})
    with pytest.raises(openai.BadRequestError, match=r"function\.name"):
        ask(client, tools=[{"type": "function", "function": {"name": "a b"}}])
    answer = httpx.post(f"{scripted}/v1/chat/completions", json={"messages": QUESTION, "tools": TOOLS})
    assert "the chat template of tiny knows none" in answer.json()["error"]["message"]
