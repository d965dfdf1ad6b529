"""DeepSeek's format field by field (api-docs.deepseek.com: Create Chat Completion, error codes, rate limit)."""

import json

import httpx
import pytest

from clearseek.config.server import Server
from clearseek.serve.registry import Registry
from tests.serve.live import live, tiny_served
from tests.serve.scripted import scripted_model

QUESTION = [{"role": "user", "content": "12 + 5?"}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}


TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def strict_server(hermes):
    with live(Registry([scripted_model(hermes, "12 + 5</think>17")]), Server(port=0, strict=True)) as address:
        yield address


def body(**settings):
    return {"model": "deepseek-reasoner", "messages": QUESTION, "max_tokens": 24, "seed": 5} | settings


def post(server, path="/chat/completions", **settings):
    return httpx.post(f"{server}{path}", json=body(**settings), timeout=30)


def events(server, path="/chat/completions", **settings):
    """The chunks of a stream, whose last line is [DONE]."""
    answer = post(server, path, stream=True, **settings)
    assert answer.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    lines = [line for line in answer.text.split("\n\n") if line]
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions", "/beta/chat/completions"])
def test_an_answer_has_every_field(server, path):
    answer = post(server, path).json()
    assert set(answer) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert (answer["object"], answer["model"]) == ("chat.completion", "deepseek-reasoner")
    (choice,) = answer["choices"]
    assert set(choice) == {"index", "message", "finish_reason", "logprobs"}
    assert set(choice["message"]) == {"role", "content", "reasoning_content"}
    assert choice["finish_reason"] in ("stop", "length")
    usage = answer["usage"]
    assert usage["prompt_tokens"] == usage["prompt_cache_hit_tokens"] + usage["prompt_cache_miss_tokens"]
    assert usage["prompt_tokens_details"]["cached_tokens"] == usage["prompt_cache_hit_tokens"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["completion_tokens_details"]["reasoning_tokens"] <= usage["completion_tokens"]


def test_a_stream_tells_its_usage_in_the_last_chunk(server):
    chunks = events(server)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    first = chunks[0]["choices"][0]["delta"]
    assert first == {"role": "assistant", "content": "", "reasoning_content": ""}
    assert all("usage" not in chunk for chunk in chunks[:-1])
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    assert chunks[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    asked = events(server, stream_options={"include_usage": True})
    assert [chunk["usage"] for chunk in asked[:-1]] == [None] * (len(asked) - 1)
    assert asked[-1]["usage"]
    assert len(asked[-1]["choices"]) == 1


def test_openai_s_stream_tells_it_in_a_chunk_of_its_own_and_only_if_asked(server):
    path = "/v1/chat/completions"
    assert all("usage" not in chunk for chunk in events(server, path))
    asked = events(server, path, stream_options={"include_usage": True})
    assert asked[-1]["choices"] == []
    assert asked[-1]["usage"]["total_tokens"] > 0


def test_thoughts_come_first_and_then_the_answer(scripted, tokenizer):
    chunks = events(scripted)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas) == "12 + 5 = 17"
    assert "".join(delta.get("content") or "" for delta in deltas) == "17입니다."
    kinds = [name for delta in deltas[1:] for name in delta]
    assert kinds == sorted(kinds, reverse=True)  # reasoning_content, then content
    answer = post(scripted).json()
    assert answer["choices"][0]["message"]["reasoning_content"] == "12 + 5 = 17"
    assert answer["choices"][0]["message"]["content"] == "17입니다."
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == len(
        tokenizer.encode("12 + 5 = 17")
    )


@pytest.mark.parametrize(
    ("settings", "thinks"),
    [
        ({}, True),
        ({"model": "deepseek-chat"}, False),
        ({"model": "deepseek-chat", "thinking": {"type": "enabled"}}, True),
        ({"thinking": {"type": "disabled"}}, False),
        ({"model": "deepseek-flash"}, True),
        ({"model": "tiny"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "max"}, True),
        ({"chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"chat_template_kwargs": {"thinking": True}, "model": "deepseek-chat"}, True),
    ],
)
def test_whether_it_thinks(server, settings, thinks):
    assert ("reasoning_content" in events(server, **settings)[0]["choices"][0]["delta"]) == thinks


def test_low_effort_bounds_the_thought(scripted_model):
    model, asked = scripted_model
    with live(Registry([model])) as address:
        for effort, budget in (("minimal", 1024), ("low", 1024), ("medium", None), ("ultra", None)):
            post(address, reasoning_effort=effort, max_tokens=4000)
            assert asked[-1].sampling.thinking_budget == budget
        post(address, thinking_token_budget=3)
        assert asked[-1].sampling.thinking_budget == 3
        assert post(address, reasoning_effort="low", max_tokens=100).status_code == 200
        assert asked[-1].sampling.thinking_budget == 50


# Histories


def prompt_tokens(server, messages, **settings):
    answer = post(server, messages=messages, **settings)
    assert answer.status_code == 200, answer.text
    return answer.json()["usage"]["prompt_tokens"]


def test_thoughts_of_earlier_turns_are_left_out(server):
    def turns(**fields):
        return [
            *QUESTION,
            {"role": "assistant", "content": "17"} | fields,
            {"role": "user", "content": "+ 1?"},
        ]

    plain = prompt_tokens(server, turns())
    assert prompt_tokens(server, turns(reasoning_content="a long thought about it")) == plain
    assert prompt_tokens(server, turns(reasoning="a long thought about it")) == plain


def test_a_prefix_is_continued(scripted_model, tokenizer):
    model, asked = scripted_model
    with live(Registry([model])) as address:
        prefix = {"role": "assistant", "content": "It is", "prefix": True}
        post(address, "/beta/chat/completions", messages=[*QUESTION, prefix])
        assert tokenizer.decode(asked[-1].prompt).endswith("12 + 5?<｜Assistant｜></think>It is")
        prefix["reasoning_content"] = "so 17"
        post(address, "/beta/chat/completions", messages=[*QUESTION, prefix])
        assert tokenizer.decode(asked[-1].prompt).endswith("<｜Assistant｜><think>so 17</think>It is")


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (
            [*QUESTION, {"role": "assistant", "content": "x"}],
            "the last message is the assistant's: set its prefix",
        ),
        (
            [{"role": "user", "content": "x", "prefix": True}],
            "messages.0.prefix: only the last message has it",
        ),
        (
            [{"role": "assistant", "content": "x", "prefix": True}, *QUESTION],
            "messages.0.prefix: only the last",
        ),
        ([*QUESTION, {"role": "tool", "content": "x"}], "messages.1.tool_call_id"),
        ([{"role": "user"}], "messages.0.content: it has to be there"),
        ([{"role": "robot", "content": "x"}], "messages.0.role"),
        ([{"role": "user", "content": "x", "conten": 1}], "did you mean 'content'?"),
        ([], "messages"),
    ],
)
def test_histories_that_nothing_can_follow_are_refused(server, messages, message):
    answer = post(server, messages=messages)
    assert answer.status_code == 422
    assert message in answer.json()["error"]["message"]


def test_strict_wants_thoughts_back_where_a_tool_was_called(tokenizer):
    called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    messages = [*QUESTION, called, {"role": "tool", "tool_call_id": "call_1", "content": "17"}]
    for strict in (False, True):
        with live(Registry([tiny_served(tokenizer)]), Server(port=0, strict=strict)) as address:
            answer = post(address, messages=messages)
            refused = (
                "The `reasoning_content` in the thinking mode must be passed back to the API." in answer.text
            )
            assert refused == strict
            assert not strict or answer.status_code == 400
            called["reasoning_content"] = "I add"
            assert "must be passed back" not in post(address, messages=messages).text
            del called["reasoning_content"]


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("turn", "settings", "why"),
    [
        # with tools every turn of the assistant's has its thought, one that called nothing, too
        ({}, {"tools": [TOOL], "model": "deepseek-flash"}, "must be passed back to the API"),
        ({}, {"tools": [TOOL]}, "must be passed back to the API"),
        ({"reasoning_content": "I add"}, {"tools": [TOOL]}, None),
        ({}, {"tools": [TOOL], "thinking": {"type": "disabled"}}, None),
        ({}, {"tools": [TOOL], "model": "deepseek-chat"}, None),
        ({}, {}, None),
        # without, it is ignored; but by R1's service it was refused
        ({"reasoning_content": "I add"}, {"model": "deepseek-flash"}, None),
        ({"reasoning_content": "I add"}, {}, "deepseek-reasoner takes no thoughts of earlier turns back"),
        ({"reasoning": "I add"}, {}, "deepseek-reasoner takes no thoughts of earlier turns back"),
    ],
)
def test_strict_has_deepseek_s_rules_of_thoughts(strict_server, path, turn, settings, why):
    messages = [*QUESTION, {"role": "assistant", "content": "17"} | turn, *QUESTION]
    answer = post(strict_server, path, messages=messages, **settings)
    assert answer.status_code == (200 if why is None else 400), answer.text
    assert why is None or answer.json()["error"]["param"] == "messages.1.reasoning_content"
    assert why is None or why in answer.json()["error"]["message"]


def test_strict_lets_a_begun_answer_have_its_thought(strict_server):
    begun = {"role": "assistant", "content": "1", "prefix": True}
    for thought in ({}, {"reasoning_content": "I add"}):
        answer = post(strict_server, "/beta/chat/completions", messages=[*QUESTION, begun | thought])
        assert answer.status_code == 200, answer.text


# Log-probabilities


def test_log_probabilities_are_told_apart_for_thought_and_answer(scripted):
    answer = post(scripted, logprobs=True, top_logprobs=2).json()
    told = answer["choices"][0]["logprobs"]
    assert set(told) == {"content", "reasoning_content"}
    joined = {name: b"".join(bytes(record["bytes"]) for record in records) for name, records in told.items()}
    assert joined["reasoning_content"].decode() == "12 + 5 = 17</think>"
    assert joined["content"].decode().startswith("17입니다.")
    for record in told["content"] + told["reasoning_content"]:
        assert set(record) == {"token", "logprob", "bytes", "top_logprobs"}
        assert record["logprob"] <= 0


def test_the_likeliest_are_told_on_request(server):
    chunks = events(server, logprobs=True, top_logprobs=3)
    records = [
        record
        for chunk in chunks
        for field in (chunk["choices"][0]["logprobs"] or {}).values()
        for record in field
    ]
    assert len(records) == chunks[-1]["usage"]["completion_tokens"]
    assert {len(record["top_logprobs"]) for record in records} == {3}


# Errors


@pytest.mark.parametrize(
    ("settings", "status", "openai_status"),
    [
        ({"temperature": 3}, 422, 400),
        ({"messages": "x"}, 422, 400),
        ({"max_tokens": 10**6}, 422, 400),
        ({"model": "deepseek-v9"}, 400, 404),
        ({"top_logprobs": 21, "logprobs": True}, 422, 400),
        ({"top_logprobs": 2}, 422, 400),
        ({"stream_options": {"include_usage": True}}, 422, 400),
        ({"stop": ["x"] * 17}, 422, 400),
        ({"temprature": 1}, 422, 400),
        ({"response_format": {"type": "json_schema"}}, 422, 400),
    ],
)
def test_errors_have_each_service_s_status(server, settings, status, openai_status):
    for path, wanted in (("/chat/completions", status), ("/v1/chat/completions", openai_status)):
        answer = post(server, path, **settings)
        assert answer.status_code == wanted, answer.text
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_what_is_no_json_is_400_at_both(server):
    for path in ("/chat/completions", "/v1/chat/completions"):
        answer = httpx.post(f"{server}{path}", content=b"{", headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_signs_of_life_while_an_answer_waits(tokenizer):
    settings = Server(port=0, keep_alive_seconds=0.05)
    with live(Registry([tiny_served(tokenizer, num_slots=1, context=4096)]), settings) as address:
        long = body(stream=True, max_tokens=3000, model="tiny", ignore_eos=True)
        with httpx.stream("POST", f"{address}/v1/chat/completions", json=long, timeout=30) as first:
            lines = first.iter_lines()
            next(lines)
            with httpx.stream("POST", f"{address}/v1/chat/completions", json=long, timeout=30) as second:
                said = (line for line in second.iter_lines() if line)
                assert next(said).startswith("data: ")
                assert next(said) == ": keep-alive"
            short = body(max_tokens=2, model="tiny")
            with httpx.stream("POST", f"{address}/chat/completions", json=short, timeout=30) as third:
                assert third.status_code == 200
                assert next(third.iter_raw()) == b"\n"


def test_an_answer_that_does_not_begin_is_given_up(scripted_model):
    model, _ = scripted_model
    model.service.seconds, model.patience_seconds = 2.0, 0.2
    with live(Registry([model])) as address:
        answer = post(address)
        assert answer.status_code == 503
        assert answer.json()["error"]["message"] == "no answer began within 0.2 s"
        with httpx.stream(
            "POST", f"{address}/chat/completions", json=body(stream=True), timeout=30
        ) as stream:
            said = [line for line in stream.iter_lines() if line]
        assert (
            json.loads(said[-1].removeprefix("data: "))["error"]["message"] == "no answer began within 0.2 s"
        )
