"""Anthropic's own client against a live server: thinking, text and tool use, whole and streamed; errors; counting."""

import json

import anthropic
import pytest

from clearseek.serve.anthropic_shapes import AnthropicMessage
from clearseek.serve.keys import Key, Keys
from clearseek.serve.registry import Registry
from tests.serve.hermes import CALLS
from tests.serve.live import live
from tests.serve.scripted import scripted_model

TOOLS = [{"name": "add", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}]
QUESTION = [{"role": "user", "content": "12 + 5?"}]


@pytest.fixture(scope="module", params=[1, 1000])
def model(request, hermes):
    return scripted_model(hermes, CALLS, tokens_at_once=request.param)


@pytest.fixture(scope="module")
def client(model):
    with (
        live(Registry([model])) as address,
        anthropic.Anthropic(base_url=address, api_key="x", max_retries=0) as client,
    ):
        yield client


def settings(**more):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    return {
        "model": "tiny", "max_tokens": 2000, "messages": QUESTION, "tools": TOOLS, "thinking": thinking,
    } | more  # fmt: skip


def check(message):
    assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
    thought, text, first, second = message.content
    assert (thought.thinking, text.text, bool(thought.signature)) == ("I add.", "Let me see.", True)
    assert (first.name, first.input, second.input) == ("add", {"a": 12, "b": 5}, {"a": 1, "b": 2})
    assert message.stop_reason == "tool_use"
    assert message.usage.output_tokens > 10


def test_a_whole_message(client):
    raw = client.messages.with_raw_response.create(**settings())
    AnthropicMessage.model_validate_json(raw.text())  # our own description of it
    check(raw.parse())


def test_a_streamed_message_is_the_same(client):
    with client.messages.stream(**settings()) as stream:
        kinds = [event.type for event in stream]
        check(stream.get_final_message())
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")


def test_a_turn_can_be_sent_back_with_its_results(client, model):
    message = client.messages.create(**settings())
    calls = [block.id for block in message.content if block.type == "tool_use"]
    results = [{"type": "tool_result", "tool_use_id": call, "content": "17"} for call in calls]
    turns = [
        *QUESTION,
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": results},
    ]
    client.messages.create(**settings(messages=turns))
    prompt = model.tokenizer.decode(model.service.asked[-1].prompt)
    assert '<tool_call>\n{"name": "add", "arguments": {"a": 12, "b": 5}}' in prompt
    assert prompt.count("[tool]17") == 2
    results[0]["is_error"] = True
    client.messages.create(**settings(messages=turns))
    prompt = model.tokenizer.decode(model.service.asked[-1].prompt)
    assert "[tool]Error: 17" in prompt


def test_tokens_are_counted(client, model):
    asked = settings()
    del asked["max_tokens"]
    counted = client.messages.count_tokens(**asked)
    client.messages.create(**settings())
    assert counted.input_tokens == len(model.service.asked[-1].prompt)


def test_errors_have_anthropics_shape(client):
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(**settings(model="no such"))
    assert caught.value.body["error"]["type"] == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(**settings(max_tokens=0))


def test_text_after_a_call_stays_after_it(hermes):
    said = CALLS.replace("</tool_call>", "</tool_call>\nThat was all.", 1)
    for tokens_at_once in (1, 1000):
        with live(Registry([scripted_model(hermes, said, tokens_at_once=tokens_at_once)])) as address:
            client = anthropic.Anthropic(base_url=address, api_key="x", max_retries=0)
            message = client.messages.create(**settings())
        kinds = [block.type for block in message.content]
        assert kinds == ["thinking", "text", "tool_use", "text", "tool_use"]
        assert message.content[3].text.strip() == "That was all."


def test_the_stop_sequence_that_ended_it_is_told(server):
    client = anthropic.Anthropic(base_url=server, api_key="x", max_retries=0)
    asked = settings(tools=[], max_tokens=60, extra_body={"temperature": 0.0}, thinking={"type": "disabled"})
    said = client.messages.create(**asked).content[0].text
    stop = said[8:12]
    stopped = client.messages.create(**asked, stop_sequences=["never said", stop])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", stop)
    assert "".join(block.text for block in stopped.content) == said[: said.index(stop)]
    with client.messages.stream(**asked, stop_sequences=[stop]) as stream:
        assert stream.get_final_message().stop_sequence == stop


def test_a_thought_that_is_to_be_omitted_is_there_and_empty(client):
    asked = settings(thinking={"type": "enabled", "budget_tokens": 1024, "display": "omitted"})
    with client.messages.stream(**asked) as stream:
        streamed = list(stream) and stream.get_final_message()
    whole = client.messages.create(**asked)
    for message in (whole, streamed):
        assert [block.type for block in message.content] == ["thinking", "text", "tool_use", "tool_use"]
        assert (message.content[0].thinking, bool(message.content[0].signature)) == ("", True)
        assert message.usage.output_tokens_details.thinking_tokens > 0
    summarized = settings(thinking={"type": "adaptive", "display": "summarized"})
    check(client.messages.create(**summarized))


def test_an_answer_of_a_schema(server):
    client = anthropic.Anthropic(base_url=server, api_key="x", max_retries=0)
    schema = {
        "type": "object",
        "properties": {"a": {"enum": [1, 2]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    wanted = {"output_config": {"format": {"type": "json_schema", "schema": schema}}}
    message = client.messages.create(
        **settings(tools=[], thinking={"type": "disabled"}, max_tokens=200), **wanted
    )
    assert json.loads(message.content[0].text)["a"] in (1, 2)


def test_a_tool_has_to_be_there_to_be_forced(client):
    for choice in ({"type": "any"}, {"type": "tool", "name": "add"}):
        with pytest.raises(anthropic.BadRequestError, match="there are no tools to choose from"):
            client.messages.create(**settings(tools=[], tool_choice=choice))


def test_what_clients_say_of_caching_and_streaming_is_known(client):
    tool = TOOLS[0] | {"eager_input_streaming": True, "cache_control": {"type": "ephemeral"}}
    check(client.messages.create(**settings(tools=[tool]), cache_control={"type": "ephemeral"}))


def test_a_bound_beyond_the_context_is_the_context(hermes):
    with live(Registry([scripted_model(hermes, CALLS * 20, context=300)])) as address:
        client = anthropic.Anthropic(base_url=address, api_key="x", max_retries=0)
        answer = client.messages.create(**settings(max_tokens=20_000, tools=[]))
        assert answer.stop_reason == "model_context_window_exceeded"
        assert answer.usage.input_tokens + answer.usage.output_tokens == 300
        cut = client.messages.create(**settings(max_tokens=5, tools=[]))
        assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 5)


def test_an_error_in_mid_stream_has_anthropics_shape(hermes):
    with live(Registry([scripted_model(hermes, CALLS, error="it broke")])) as address:
        client = anthropic.Anthropic(base_url=address, api_key="x", max_retries=0)
        with pytest.raises(anthropic.APIStatusError, match="it broke") as caught:
            list(client.messages.create(**settings(stream=True)))
    assert caught.value.body == {"type": "error", "error": {"type": "api_error", "message": "it broke"}}


def test_who_has_no_key_is_told_so_in_anthropics_shape(hermes):
    with live(Registry([scripted_model(hermes, CALLS)]), keys=Keys([Key("ann", "0" * 64)])) as address:
        client = anthropic.Anthropic(base_url=address, api_key="wrong", max_retries=0)
        with pytest.raises(anthropic.AuthenticationError) as caught:
            client.messages.create(**settings())
    assert caught.value.body["error"]["type"] == "authentication_error"


def test_a_tool_s_name_may_be_as_long_as_anthropic_lets_it(client):
    """Names of MCP servers' tools are: mcp__server__tool."""
    tool = TOOLS[0] | {"name": "mcp__" + "a" * 123}
    assert client.messages.create(**settings(tools=[tool])).stop_reason == "tool_use"
    with pytest.raises(anthropic.BadRequestError, match=r"tools.0.name"):
        client.messages.create(**settings(tools=[TOOLS[0] | {"name": "a" * 129}]))
