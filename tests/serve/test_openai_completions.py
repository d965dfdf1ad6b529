"""`/v1/completions`, tokens and embeddings, as OpenAI's client and plain arithmetic see them."""

import asyncio
import json
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import openai
import pytest
import torch

from clearseek.serve.registry import Registry
from clearseek.text.tokenizer import Tokenizer
from tests.serve.live import live, tiny_served

HOLE = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")


@pytest.fixture(scope="module")
def served(tokenizer):
    return tiny_served(tokenizer)


@pytest.fixture(scope="module")
def address(served):
    with live(Registry([served])) as address:
        yield address


@pytest.fixture(scope="module")
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


def ask(client, **settings):
    return client.completions.create(
        **{"model": "tiny", "prompt": "12 + 5", "max_tokens": 12, "seed": 4, "temperature": 1.0} | settings
    )


def test_a_stream_says_what_the_whole_answer_says(client):
    prompts = ["12 + 5", "먼저", "首先"]
    whole = ask(client, prompt=prompts, n=2)
    assert [choice.index for choice in whole.choices] == list(range(6))
    texts, usage = dict.fromkeys(range(6), ""), None
    for chunk in ask(client, prompt=prompts, n=2, stream=True, stream_options={"include_usage": True}):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == {choice.index: choice.text for choice in whole.choices}
    assert usage.completion_tokens == whole.usage.completion_tokens


def test_tokens_may_be_given_and_got(client, tokenizer):
    tokens = [tokenizer.bos_id, *tokenizer.encode("12 + 5")]
    by_text = ask(client, extra_body={"return_token_ids": True})
    by_tokens = ask(client, prompt=tokens, extra_body={"return_token_ids": True})
    assert by_text.choices[0].text == by_tokens.choices[0].text
    assert len(by_tokens.choices[0].token_ids) == by_tokens.usage.completion_tokens


def test_log_probabilities_are_the_model_s(client, served, tokenizer):
    answer = ask(client, logprobs=3, echo=True, extra_body={"return_token_ids": True})
    told, model = answer.choices[0].logprobs, served.service.line.engine.model
    prompt = [tokenizer.bos_id, *tokenizer.encode("12 + 5")]
    tokens = torch.tensor([[*prompt, *answer.choices[0].token_ids]])
    with torch.no_grad():
        states = model(tokens, torch.ones_like(tokens), torch.float32, 0).states
        wanted = model.logits(states)[0].log_softmax(-1)
    own = wanted[range(tokens.shape[1] - 1), tokens[0, 1:]]
    assert told.token_logprobs[0] is None
    assert not hasattr(told, "kept_mass")
    torch.testing.assert_close(torch.tensor(told.token_logprobs[1:]), own, rtol=0, atol=1e-4)
    assert len(told.tokens) == len(told.text_offset) == len(told.top_logprobs) == tokens.shape[1]
    own_texts = ["" if token == tokenizer.bos_id else text
                 for token, text in zip(tokens[0].tolist(), told.tokens, strict=True)]  # fmt: skip
    assert told.text_offset == [len("".join(own_texts[:place])) for place in range(len(own_texts))]
    with pytest.raises(openai.BadRequestError, match="of an echoed prompt are known at the end"):
        ask(client, logprobs=3, echo=True, stream=True)


def test_what_tokens_were_drawn_from_is_told_beside_log_probabilities(client):
    asked = {"temperature": 0.5, "top_p": 0.6, "logprobs": 0}
    plain = ask(client, **asked)
    whole = ask(client, echo=True, extra_body={"processed_logprobs": True}, **asked)
    told, count = whole.choices[0].logprobs, len(plain.choices[0].logprobs.tokens)
    near = partial(pytest.approx, abs=1e-5)  # PyTorch's sums depend on how a prompt is cut
    assert told.token_logprobs[-count:] == near(plain.choices[0].logprobs.token_logprobs)
    assert told.raw_token_logprobs[:-count] == told.kept_mass[:-count] == [None] * (len(told.tokens) - count)
    drawn = zip(told.token_logprobs, told.processed_token_logprobs, told.kept_mass, strict=True)
    for log_prob, processed, mass in list(drawn)[-count:]:
        assert 0.6 <= mass <= 1
        assert processed == near(log_prob - math.log(mass))
    assert told.raw_token_logprobs[-count:] != told.token_logprobs[-count:]
    chunks = ask(client, stream=True, extra_body={"processed_logprobs": True}, **asked)
    streamed = [one for chunk in chunks for one in chunk.choices[0].logprobs.processed_token_logprobs]
    assert streamed == near(told.processed_token_logprobs[-count:])


def test_the_best_of_several_is_given(client):
    drawn = ask(client, n=6, logprobs=0)
    means = [sum(c.logprobs.token_logprobs) / len(c.logprobs.token_logprobs) for c in drawn.choices]
    best = ask(client, n=1, best_of=6, logprobs=0)
    assert best.choices[0].text == drawn.choices[means.index(max(means))].text
    with pytest.raises(openai.BadRequestError, match="best_of: at least n"):
        ask(client, n=3, best_of=2)


def test_a_hole_needs_a_model_that_learnt_to_fill_it(client, address):
    with pytest.raises(openai.BadRequestError, match="this model has no tokens for filling in the middle"):
        ask(client, suffix="17")
    answer = httpx.post(f"{address}/beta/completions", json={"prompt": "a", "suffix": "b"})
    assert answer.status_code == 422


@pytest.fixture(scope="module")
def filler(tokenizer, tmp_path_factory):
    """The tokenizer with DeepSeek's tokens for holes, as its files would have them."""
    import tokenizers

    folder = tmp_path_factory.mktemp("filler")
    tokenizer.save(folder)
    path = str(folder / "tokenizer.json")
    changed = tokenizers.Tokenizer.from_file(path)
    changed.add_special_tokens(list(HOLE))
    changed.save(path)
    return Tokenizer.load(folder)


@pytest.mark.parametrize("path", ["/beta/completions", "/v1/completions"])
def test_a_hole_is_filled_as_deepseek_s_models_learnt_it(filler, path):
    """The text before it, its place, the text behind it; what looks like those tokens in a text is none."""
    begin, hole, end = map(filler.token_id, HOLE)
    asked = {"model": "tiny", "max_tokens": 8, "temperature": 0.0}
    before, after = "12 + 5 = ", f"이므로 {HOLE[1]} 정확하다"
    prompt = [
        filler.bos_id, begin, *filler.encode_plain(before), hole, *filler.encode_plain(after), end,
    ]  # fmt: skip
    assert sum(token in (begin, hole, end) for token in prompt) == 3
    with live(Registry([tiny_served(filler)])) as address:

        def post(**settings):
            answer = httpx.post(f"{address}{path}", json=asked | settings, timeout=30)
            assert answer.status_code == 200, answer.text
            return answer

        filled = post(prompt=before, suffix=after).json()
        assert filled["object"] == "text_completion"
        assert filled["usage"]["prompt_tokens"] == len(prompt)
        assert filled["choices"][0]["text"] == post(prompt=prompt).json()["choices"][0]["text"] != ""
        assert filled["choices"][0]["text"] != post(prompt=before).json()["choices"][0]["text"]
        lines = post(prompt=before, suffix=after, stream=True).text.split("\n\n")
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
        said = "".join(chunk["choices"][0]["text"] for chunk in chunks if chunk["choices"])
        assert said == filled["choices"][0]["text"]


def test_tokens_are_told_there_and_back(address, tokenizer):
    def post(path, **body):
        return httpx.post(f"{address}{path}", json=body).json()

    text = "首先 12 + 5 <｜User｜> 먼저"
    told = post("/tokenize", prompt=text, return_token_strs=True)
    assert told["tokens"] == [tokenizer.bos_id, *tokenizer.encode_plain(text)]
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert post("/detokenize", tokens=told["tokens"][1:])["prompt"] == text
    assert post("/tokenize", prompt=text, add_special_tokens=False)["tokens"] == told["tokens"][1:]
    messages = [{"role": "user", "content": "12 + 5?"}]
    assert post("/tokenize", messages=messages)["tokens"] == tokenizer.encode_chat(messages)
    thought = {"role": "assistant", "content": "17", "reasoning_content": "so", "prefix": True}
    wanted = tokenizer.encode_chat(
        [*messages, thought], add_generation_prompt=False, continue_final_message=True
    )
    assert post("/tokenize", messages=[*messages, thought])["tokens"] == wanted
    ended = [*messages, {"role": "assistant", "content": "17"}]
    wanted = tokenizer.encode_chat(ended, add_generation_prompt=False)
    assert post("/tokenize", messages=ended, add_generation_prompt=False)["tokens"] == wanted
    assert "the last message is the assistant's" in str(post("/tokenize", messages=ended))
    assert "only a conversation has them" in str(post("/tokenize", prompt="a", chat_template_kwargs={"a": 1}))
    assert "give a prompt or messages" in str(post("/tokenize"))
    assert "tokens: they are from 0 to" in str(post("/detokenize", tokens=[10**6]))


@pytest.mark.parametrize("form", ["float", "base64"])
def test_embeddings_are_the_mean_of_the_last_states(client, served, tokenizer, form):
    texts = ["12 + 5 = 17", "首先"]
    answer = client.embeddings.create(model="tiny", input=texts, encoding_format=form)
    for text, told in zip(texts, answer.data, strict=True):
        tokens = torch.tensor([tokenizer.encode_plain(text)])
        with torch.no_grad():
            model = served.service.line.engine.model
            mean = model(tokens, torch.ones_like(tokens), torch.float32, 0).states[0].mean(0)
        found = told.embedding
        if form == "base64":
            import base64

            import numpy as np

            found = (
                np.frombuffer(base64.b64decode(found), "<f4").tolist() if isinstance(found, str) else found
            )
        torch.testing.assert_close(torch.tensor(found), mean / mean.norm(), rtol=0, atol=1e-5)
    assert answer.usage.prompt_tokens == sum(len(tokenizer.encode_plain(text)) for text in texts)
    with pytest.raises(openai.BadRequestError, match="dimensions: this model's vectors have"):
        client.embeddings.create(model="tiny", input="x", dimensions=7)


def test_embeddings_wait_their_turn_and_are_bounded(tokenizer):
    model = tiny_served(tokenizer, most_waiting=0)
    begun, go = threading.Event(), threading.Event()

    async def slowly(tokens, state=model.service.mean_state):
        begun.set()
        assert await asyncio.to_thread(go.wait, 30)
        return await state(tokens)

    model.service.mean_state = slowly
    with live(Registry([model])) as address, ThreadPoolExecutor(1) as pool:
        asked = {"input": ["12", "5"]}
        first = pool.submit(httpx.post, f"{address}/v1/embeddings", json=asked, timeout=60)
        assert begun.wait(30)
        second = httpx.post(f"{address}/v1/embeddings", json=asked)
        assert (second.status_code, second.headers["retry-after"]) == (429, "1")
        assert not model.is_idle
        go.set()
        assert first.result().status_code == 200
        assert len(first.result().json()["data"]) == 2


def test_the_balance_is_deepseek_s_shape(address):
    told = httpx.get(f"{address}/user/balance").json()
    assert told["is_available"] is True
    assert {type(value) for value in told["balance_infos"][0].values()} == {str}
