"""`/v1/chat/completions` as OpenAI's own client sees it."""

import math

import openai
import pytest

QUESTION = [{"role": "user", "content": "12 + 5?"}]


@pytest.fixture(scope="module")
def client(server):
    with openai.OpenAI(base_url=f"{server}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


def ask(client, **settings):
    settings = {
        "messages": QUESTION,
        "model": "tiny",
        "max_tokens": 24,
        "seed": 5,
        "temperature": 1.0,
    } | settings
    return client.chat.completions.create(**settings)


def streamed(client, **settings):
    """The whole of a stream: texts by choice and field, finish reasons, the last chunk's usage."""
    texts, reasons, usage = {}, {}, None
    for chunk in ask(client, stream=True, stream_options={"include_usage": True}, **settings):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            for field in ("content", "reasoning_content"):
                said = getattr(choice.delta, field, None) or ""
                texts[choice.index, field] = texts.get((choice.index, field), "") + said
            if choice.finish_reason:
                assert choice.index not in reasons
                reasons[choice.index] = choice.finish_reason
    return texts, reasons, usage


def test_what_tokens_were_drawn_from_is_told_beside_log_probabilities(client):
    asked = {"logprobs": True, "temperature": 0.5, "top_p": 0.6}
    whole = ask(client, extra_body={"processed_logprobs": True}, **asked).choices[0].logprobs
    records = [*whole.reasoning_content, *(one.model_dump() for one in whole.content)]
    assert records
    for one in records:
        assert one["processed_logprob"] == pytest.approx(
            one["logprob"] - math.log(one["kept_mass"]), abs=1e-5
        )
    assert any(one["raw_logprob"] != one["logprob"] for one in records)
    plain = ask(client, **asked).choices[0].logprobs
    assert not any("kept_mass" in one for one in plain.reasoning_content)
    with pytest.raises(openai.BadRequestError, match="processed_logprobs: it needs logprobs"):
        ask(client, extra_body={"processed_logprobs": True})


def test_an_answer_has_openai_s_shape(client):
    answer = ask(client)
    assert answer.object == "chat.completion"
    assert answer.model == "tiny"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens == answer.usage.total_tokens
    assert answer.usage.completion_tokens <= 24


def test_a_stream_says_what_the_whole_answer_says(client):
    whole = ask(client, n=3)
    texts, reasons, usage = streamed(client, n=3)
    for choice in whole.choices:
        thought = getattr(choice.message, "reasoning_content", None)
        assert (texts[choice.index, "content"], texts[choice.index, "reasoning_content"]) == (
            choice.message.content or "",
            thought or "",
        )
        assert reasons[choice.index] == choice.finish_reason
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").object == "model"


def test_a_model_that_is_not_there_is_404(client):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-9'; GET /v1/models lists: tiny"):
        ask(client, model="gpt-9")


def test_what_is_wrong_with_a_request_is_said(client):
    with pytest.raises(openai.BadRequestError, match="temperature"):
        ask(client, temperature=7)
    with pytest.raises(openai.BadRequestError, match="context holds 256"):
        ask(client, max_tokens=10_000)
