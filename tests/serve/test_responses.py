"""`/v1/responses` as OpenAI's own client sees it: every response and event held against its types."""

import json

import httpx
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent

from clearseek.serve.registry import Registry
from clearseek.serve.responses_shapes import ResponseObject
from tests.serve.hermes import CALLS
from tests.serve.live import live
from tests.serve.scripted import scripted_model
from tests.serve.strict import strictly

TOOLS = [
    {
        "type": "function",
        "name": "add",
        "description": "Adds.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
        "strict": False,
    }
]


@pytest.fixture(scope="module", params=[1, 1000])
def model(request, hermes):
    return scripted_model(hermes, CALLS, tokens_at_once=request.param)


@pytest.fixture(scope="module")
def client(model):
    with live(Registry([model])) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="x") as client:
        yield client


@pytest.fixture(scope="module")
def engine_client(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="x", max_retries=0) as client:
        yield client


def ask(client, **settings):
    raw = client.responses.with_raw_response.create(
        **{"model": "tiny", "input": "12 + 5?", "tools": TOOLS} | settings
    )
    ResponseObject.model_validate_json(raw.text)  # our own description of it
    return strictly(Response, json.loads(raw.text))


def stream(client, **settings):
    asked = {"model": "tiny", "input": "12 + 5?", "tools": TOOLS} | settings
    address = str(client.base_url) + "responses"
    with httpx.stream("POST", address, json=asked | {"stream": True}, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        lines = list(answer.iter_lines())
    names = [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]
    events = [
        strictly(ResponseStreamEvent, json.loads(line[6:])) for line in lines if line.startswith("data: ")
    ]
    assert names == [event.type for event in events]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    return events


def without_ids(items):
    return [{k: v for k, v in item.model_dump().items() if k not in ("id", "call_id")} for item in items]


def test_an_answer_is_a_thought_a_message_and_calls(client):
    answer = ask(client)
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"]
    thought, message, first, second = answer.output
    assert (thought.content[0].text, message.content[0].text) == ("I add.", "Let me see.")
    assert (json.loads(first.arguments), json.loads(second.arguments)) == (
        {"a": 12, "b": 5},
        {"a": 1, "b": 2},
    )
    assert (answer.status, answer.output_text) == ("completed", "Let me see.")
    assert answer.usage.output_tokens_details.reasoning_tokens > 0
    assert len({item.id for item in answer.output} | {first.call_id, second.call_id}) == 6


def test_a_stream_tells_the_same_in_numbered_events(client):
    events, whole = stream(client), ask(client)
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-1] == "response.completed"
    last = events[-1].response
    assert without_ids(last.output) == without_ids(whole.output)
    assert last.usage.output_tokens == whole.usage.output_tokens
    assert [e.item for e in events if e.type == "response.output_item.done"] == last.output
    deltas = {}
    for event in events:
        if event.type.endswith(".delta"):
            deltas.setdefault(event.item_id, []).append(event.delta)
    done = {e.item_id: getattr(e, "text", None) or getattr(e, "arguments", "") for e in events
            if e.type.endswith(("_text.done", "arguments.done"))}  # fmt: skip
    assert {item: "".join(parts) for item, parts in deltas.items()} == done
    assert list(done) == [item.id for item in last.output]


def test_the_clients_own_helper_reads_a_stream(client):
    with client.responses.stream(model="tiny", input="12 + 5?", tools=TOOLS) as events:
        kinds = {event.type for event in events}
        answer = events.get_final_response()
    assert "response.function_call_arguments.delta" in kinds
    assert answer.output_text == "Let me see."


def test_an_answer_can_be_sent_back_with_its_results(client, model, hermes):
    first = ask(client)
    results = [
        {"type": "function_call_output", "call_id": item.call_id, "output": "17"}
        for item in first.output
        if item.type == "function_call"
    ]
    question = {"role": "user", "content": [{"type": "input_text", "text": "12 + 5?"}]}
    ask(client, input=[question, *first.output, *results], instructions="Be brief.")
    prompt = hermes.decode(model.service.asked[-1].prompt)
    assert prompt.count('"arguments": {"a": 12, "b": 5}}\n</tool_call>') == 1
    assert "[system]Be brief.[user]12 + 5?[assistant]Let me see.<tool_call>" in prompt
    assert prompt.endswith("[tool]17[tool]17[assistant]<think>")


def test_without_thinking_or_tools(client, model):
    answer = ask(client, reasoning={"effort": "none"}, tools=openai.NOT_GIVEN)
    assert answer.reasoning.effort == "none"
    assert not model.tokenizer.decode(model.service.asked[-1].prompt).endswith("<think>")
    assert "<tool_call>" in answer.output_text


def test_one_call_where_they_may_not_be_parallel(client):
    calls = [item for item in ask(client, parallel_tool_calls=False).output if item.type == "function_call"]
    assert len(calls) == 1


def test_what_is_cut_is_incomplete(engine_client):
    asked = {"tools": openai.NOT_GIVEN, "max_output_tokens": 5, "temperature": 0.0}
    answer = ask(engine_client, **asked)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.usage.output_tokens == 5
    assert [item.status for item in answer.output] == ["incomplete"]
    events = stream(engine_client, tools=[], max_output_tokens=5, temperature=0.0)
    assert events[-1].type == "response.incomplete"
    assert without_ids(events[-1].response.output) == without_ids(answer.output)


def test_a_schema_is_kept(engine_client):
    schema = {
        "type": "object",
        "properties": {"sum": {"enum": [17, 18]}},
        "required": ["sum"],
        "additionalProperties": False,
    }
    form = {"format": {"type": "json_schema", "name": "sum", "schema": schema, "strict": True}}
    answer = ask(engine_client, text=form, reasoning={"effort": "none"}, tools=openai.NOT_GIVEN)
    assert json.loads(answer.output_text)["sum"] in (17, 18)
    assert answer.text.format.type == "json_schema"


def test_log_probabilities_of_the_message(client):
    asked = {"include": ["message.output_text.logprobs"], "tools": openai.NOT_GIVEN}
    (part,) = next(item for item in ask(client, **asked).output if item.type == "message").content
    assert {one.logprob for one in part.logprobs} == {-0.5}
    assert "".join(one.token for one in part.logprobs).startswith("Let me see.")
    told = [e.logprobs for e in stream(client, include=asked["include"], tools=[])
            if e.type == "response.output_text.delta"]  # fmt: skip
    assert sum(map(len, told)) == len(part.logprobs)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"store": True}, "store: this server keeps no responses"),
        ({"previous_response_id": "resp_1"}, "previous_response_id: this server keeps no responses"),
        ({"conversation": "conv_1"}, "conversation: this server keeps no responses"),
        ({"background": True}, "background: this server keeps no responses"),
        ({"tools": [{"type": "web_search"}]}, "Input should be 'function'"),
        ({"input": [{"type": "item_reference", "id": "1"}]}, "item_reference"),
        ({"input": []}, "at least 1 item"),
        ({"input": [{"role": "assistant", "content": "17"}]}, "the last item is the model's own"),
        ({"max_tokens": 5}, "max_tokens: there is no such field; did you mean"),
    ],
)
def test_what_is_wrong_is_said(client, settings, why):
    with pytest.raises(openai.BadRequestError, match=why):
        client.responses.create(
            model="tiny", input="12 + 5?", extra_body=settings
        )  # the client's own types would let none of it through


def test_a_failure_in_mid_stream_is_an_event(hermes):
    with live(Registry([scripted_model(hermes, CALLS, error="it broke")])) as address:
        client = openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0)
        last = stream(client)[-1]
        assert (last.type, last.response.error.message) == ("response.failed", "it broke")
        with pytest.raises(openai.InternalServerError, match="it broke"):
            ask(client)
