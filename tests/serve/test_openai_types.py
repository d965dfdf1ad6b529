"""Every response and chunk of OpenAI's older paths by its client's own types; what is ours beside them is listed."""

import json

import httpx
import pytest
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from clearseek.config.server import Server
from clearseek.serve.registry import Registry
from tests.serve.hermes import CALLS
from tests.serve.live import live, tiny_served
from tests.serve.scripted import scripted_model
from tests.serve.strict import strictly

# DeepSeek's fields, and vLLM's names for some
OURS = {
    "ChatCompletionMessage.reasoning_content", "ChatCompletionMessage.reasoning", "ChoiceDelta.reasoning_content",
    "ChoiceDelta.reasoning", "ChoiceLogprobs.reasoning_content", "CompletionUsage.prompt_cache_hit_tokens",
    "CompletionUsage.prompt_cache_miss_tokens", "CompletionChoice.token_ids", "Model.max_model_len",
}  # fmt: skip
QUESTION = [{"role": "user", "content": "12 + 5?"}]
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
CHATS = (
    {},
    {"n": 2, "seed": 3, "stop": ["x"]},
    {"logprobs": True, "top_logprobs": 2},
    {"thinking": {"type": "disabled"}},
    {"tools": TOOLS},
    {"tools": TOOLS, "parallel_tool_calls": False},
    {"stream_options": {"include_usage": True}},
    {"max_tokens": 1},
)
TEXTS = (
    {},
    {"prompt": ["12", "5"], "n": 2},
    {"logprobs": 2},
    {"echo": True, "logprobs": 1},
    {"echo": True},
    {"return_token_ids": True},
    {"stream_options": {"include_usage": True}},
)


@pytest.fixture(scope="module")
def seen():
    """What of ours has come so far."""
    return set()


@pytest.fixture(scope="module")
def address(tokenizer, hermes):
    models = [tiny_served(tokenizer), scripted_model(hermes, CALLS, "calling")]
    with live(Registry(models), Server(port=0, reasoning_alias=True)) as address:
        yield address


def whole(address, path, body):
    answer = httpx.post(f"{address}{path}", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def chunks(address, path, body):
    with httpx.stream("POST", f"{address}{path}", json=body | {"stream": True}, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        lines = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize(
    ("model", "settings"),
    [
        (model, one)
        for model in ("tiny", "calling")
        for one in CHATS
        if model == "calling" or "tools" not in one
    ],
)
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/chat/completions"])
def test_chats(address, seen, path, model, settings):
    body = {"model": model, "messages": QUESTION, "max_tokens": 200, "temperature": 0.6} | settings
    if "stream_options" not in settings:
        strictly(ChatCompletion, whole(address, path, body), OURS, seen)
    for chunk in chunks(address, path, body):
        strictly(ChatCompletionChunk, chunk, OURS, seen)


@pytest.mark.parametrize("settings", TEXTS)
@pytest.mark.parametrize("path", ["/v1/completions", "/beta/completions"])
def test_completions(address, seen, path, settings):
    body = {"model": "tiny", "prompt": "12 + 5", "max_tokens": 8} | settings
    if "stream_options" not in settings:
        answer = whole(address, path, body)
        if settings.get("echo") and "logprobs" in settings:
            # a prompt's first token has none, as OpenAI's service has it; its client's type has no null there
            assert [choice["logprobs"]["token_logprobs"].pop(0) for choice in answer["choices"]] == [None]
        strictly(Completion, answer, OURS, seen)
    if not (settings.get("echo") and "logprobs" in settings):
        for chunk in chunks(address, path, body):
            for choice in chunk["choices"]:
                # null until the end, as OpenAI's service has it; its client's type has no null there
                choice["finish_reason"] = choice["finish_reason"] or "stop"
            strictly(Completion, chunk, OURS, seen)


@pytest.mark.parametrize("asked", [{"input": "x"}, {"input": [[5, 6], [7]]}])
def test_embeddings(address, seen, asked):
    answer = whole(address, "/v1/embeddings", {"model": "tiny", "encoding_format": "float"} | asked)
    strictly(CreateEmbeddingResponse, answer, OURS, seen)


def test_models_and_that_nothing_is_listed_that_does_not_come(address, seen):
    """The last test of this module."""
    listed = httpx.get(f"{address}/v1/models").json()
    assert set(listed) == {"object", "data"}
    for card in (*listed["data"], httpx.get(f"{address}/v1/models/tiny").json()):
        strictly(Model, card, OURS, seen)
    assert seen == OURS


def test_a_field_that_is_neither_theirs_nor_listed_is_seen():
    card = {"id": "x", "object": "model", "created": 1, "owned_by": "x", "colour": "red"}
    with pytest.raises(AssertionError, match=r"Model\.colour"):
        strictly(Model, card, OURS)
