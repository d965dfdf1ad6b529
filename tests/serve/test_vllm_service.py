"""A vLLM server as whoever answers, our own server standing in for it: answers are what the engine itself says."""

import httpx
import openai
import pytest

from clearseek.config.engine import Vllm
from clearseek.config.errors import InputError, RunError
from clearseek.serve.open import open_vllm
from clearseek.serve.registry import Registry
from clearseek.serve.served_model import ServedModel
from clearseek.serve.vllm_service import VllmService
from tests.serve.live import live

QUESTION = [{"role": "user", "content": "12 + 5?"}]


@pytest.fixture(scope="module")
def fronted(server, tokenizer):
    """A server that answers through the other."""
    service = VllmService(Vllm(kind="vllm", url=server), "tiny", tokenizer)
    with live(Registry([ServedModel("fronted", tokenizer, service, 256, {})])) as address:
        yield address


def ask(address, model, **settings):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=30) as client:
        asked = {"messages": QUESTION, "model": model, "max_tokens": 16, "temperature": 0, "n": 1}
        return client.chat.completions.create(**asked | settings).choices[0]


def test_its_answers_are_the_engine_s(server, fronted):
    settings = {"logprobs": True, "top_logprobs": 2, "temperature": 0}
    ours, theirs = ask(server, "tiny", **settings), ask(fronted, "fronted", **settings)
    assert theirs.message == ours.message
    assert theirs.finish_reason == ours.finish_reason
    told = [[record.token for record in one.logprobs.content] for one in (ours, theirs)]
    assert told[0] == told[1]


def test_a_stop_string_is_found_here(server, fronted):
    text = getattr(ask(server, "tiny").message, "reasoning_content", "")
    stop = text[1:3]
    assert ask(fronted, "fronted", stop=stop).finish_reason == "stop"
    assert ask(fronted, "fronted", stop=stop).message.reasoning_content == text[: text.index(stop)]


@pytest.mark.parametrize(
    "asked",
    [
        {"response_format": {"type": "json_object"}},
        {"structured_outputs": {"regex": "a"}},
        {"logprobs": True, "processed_logprobs": True},
        {"timeout_seconds": 3.0},
    ],
    ids=str,
)
def test_what_it_is_not_asked_is_refused(fronted, asked):
    asked = {"messages": QUESTION, "max_tokens": 4} | asked
    answer = httpx.post(f"{fronted}/v1/chat/completions", json=asked)
    assert answer.status_code == 400
    assert "not with --engine vllm" in answer.json()["error"]["message"]


def test_a_server_that_is_not_there_is_503(tokenizer):
    service = VllmService(Vllm(kind="vllm", url="http://127.0.0.1:9"), "tiny", tokenizer)
    with live(Registry([ServedModel("gone", tokenizer, service, 256, {})])) as address:
        answer = httpx.post(f"{address}/v1/chat/completions", json={"messages": QUESTION})
    assert answer.status_code == 503
    assert "no vLLM answers at http://127.0.0.1:9" in answer.json()["error"]["message"]


def test_opening_says_how_to_start_it(tmp_path, tokenizer, server):
    from clearseek.model.checkpoint import save_model
    from tests.model.every_family import small
    from tests.model.tiny import tiny_model

    model = tiny_model(small("qwen3", vocab_size=tokenizer.vocab_size))
    save_model(model, tmp_path, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(tmp_path)
    assert open_vllm(str(tmp_path), Vllm(kind="vllm", url=server)).context == 256
    with pytest.raises(RunError, match=r"no vLLM at http://127\.0\.0\.1:9 .*; start it with: vllm serve"):
        open_vllm(str(tmp_path), Vllm(kind="vllm", url="http://127.0.0.1:9"))
    with pytest.raises(InputError):
        open_vllm(str(tmp_path / "nothing"), Vllm(kind="vllm", url=server))
