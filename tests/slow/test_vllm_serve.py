"""`clearseek serve --engine vllm` before a real vLLM: its answers are those of our own engine on the same weights."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import contextmanager

import httpx
import openai
import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.model.checkpoint import load_model
from clearseek.serve.engine_service import EngineService
from clearseek.serve.engine_thread import ThreadLine
from clearseek.serve.registry import Registry
from clearseek.serve.served_model import ServedModel
from tests.serve.live import live, wait_for
from tests.slow.test_vllm_rl import MODELS, PYTHON, TOKENIZER, Served

pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="vLLM is absent: make peers-vllm makes it"),
    pytest.mark.timeout(600),
]
QUESTION = [{"role": "user", "content": "What is 12 + 5?"}]
TOKENS, CONTEXT = 16, 512
ASKED = {"messages": QUESTION, "model": "begun", "max_tokens": TOKENS, "temperature": 0}
WAIT_SECONDS = 60.0


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """A real vLLM that serves random weights from a directory as we save them."""
    server = Served(tmp_path_factory.mktemp("behind"), *MODELS["tied"])
    try:
        server.engine(server.model(seed=9), server.folder / "first")  # waits
        yield server
    finally:
        server.close()


@pytest.fixture(scope="module")
def before(behind):
    """The address of our command before it."""
    command = [sys.executable, "-m", "clearseek", "serve", str(behind.folder / "begun"), "--port", "0"]
    command += ["--engine", "vllm", "--vllm-url", behind.url]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "XDG_DATA_HOME": str(behind.folder / "data")}
    with (behind.folder / "before.log").open("w") as log:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        yield address_of(process)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT_SECONDS)


def address_of(process):
    """Where a server says it is."""
    assert select.select([process.stdout], [], [], WAIT_SECONDS)[0], "it says nothing"
    return re.search(r"http://\S+", process.stdout.readline())[0]


@pytest.fixture(scope="module")
def ours(behind):
    """Our engine's own server, with the same weights."""
    engine = Engine(
        load_model(behind.folder / "begun"), TOKENIZER.stop_ids, torch.float32, tokenizer=TOKENIZER
    )
    service = EngineService(ThreadLine(engine), TOKENIZER, 8)
    with live(Registry([ServedModel("begun", TOKENIZER, service, CONTEXT, {})])) as address:
        yield address


def ask(address, **settings):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60) as client:
        return client.chat.completions.create(**ASKED | settings)


@contextmanager
def streamed(address, **settings):
    """The chunks of an answer, for as long as somebody listens."""
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0, timeout=60) as client,
        client.chat.completions.create(**ASKED | {"stream": True} | settings) as chunks,
    ):
        yield chunks


def text_of(choice):
    return getattr(choice.message, "reasoning_content", None) or choice.message.content


def test_its_answers_are_those_of_our_engine(before, ours):
    """Greedily: text, tokens, the reason of the end; log-probabilities to 1e-3, of the likeliest others too."""
    found, wanted = (ask(address, logprobs=True, top_logprobs=3) for address in (before, ours))
    assert found.choices[0].message == wanted.choices[0].message
    assert found.choices[0].finish_reason == wanted.choices[0].finish_reason
    assert found.usage.completion_tokens == wanted.usage.completion_tokens == TOKENS
    pairs = zip(found.choices[0].logprobs.content, wanted.choices[0].logprobs.content, strict=True)
    for mine, theirs in pairs:
        assert mine.token == theirs.token
        assert mine.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert [one.logprob for one in mine.top_logprobs] == pytest.approx(
            [one.logprob for one in theirs.top_logprobs], abs=1e-3
        )


def test_a_streamed_answer_is_the_whole_one(before):
    whole = text_of(ask(before).choices[0])
    with streamed(before) as chunks:
        parts = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    said = "".join(getattr(part, "reasoning_content", None) or part.content or "" for part in parts)
    assert said == whole
    assert len(parts) > 2


def test_stop_strings_and_biases_do_what_they_do_here(before, ours):
    text = text_of(ask(ours).choices[0])
    stop = text[2:4]
    found = ask(before, stop=stop).choices[0]
    assert found.finish_reason == "stop"
    assert text_of(found) == text[: text.index(stop)]
    biased = {"logit_bias": {"65": 100}}
    assert text_of(ask(before, **biased).choices[0]) == text_of(ask(ours, **biased).choices[0]) != text


def test_the_same_seed_draws_the_same_several_times(before):
    first, second = (ask(before, n=3, seed=11, temperature=1.0).choices for _ in range(2))
    assert [text_of(one) for one in first] == [text_of(one) for one in second]
    assert len({text_of(one) for one in first}) > 1


def test_what_it_can_not_do_is_said_and_the_next_is_answered(before):
    for wrong, status in (({"response_format": {"type": "json_object"}}, 400), ({"max_tokens": 10**6}, 400)):
        answer = httpx.post(f"{before}/v1/chat/completions", json=ASKED | wrong, timeout=60)
        assert answer.status_code == status
        assert json.loads(answer.text)["error"]["message"]
    assert ask(before).choices[0].finish_reason == "length"


def metric(behind, name):
    """What vLLM says of itself, summed over its labels."""
    said = httpx.get(f"{behind.url}/metrics", timeout=60).text
    return sum(map(float, re.findall(rf"^vllm:{name}\{{.*?\}} (\S+)$", said, re.MULTILINE)))


def test_who_leaves_a_stream_leaves_nothing_behind(behind, before):
    """A question that is given up in the middle is given up there too, so that the next has the machine."""
    written = metric(behind, "generation_tokens_total")
    with streamed(before, max_tokens=400) as chunks:
        next(iter(chunks))
        wait_for(lambda: metric(behind, "num_requests_running") == 1, "vLLM is not at it")
    wait_for(lambda: metric(behind, "num_requests_running") == 0, "vLLM is still at it")
    assert 0 < metric(behind, "generation_tokens_total") - written < 400
    assert ask(before).choices[0].finish_reason == "length"


def test_once_it_is_gone_that_is_what_is_said(behind, before):
    """Last in this file: it ends the server behind."""
    behind.close()
    answer = httpx.post(f"{before}/v1/chat/completions", json={"messages": QUESTION}, timeout=60)
    assert answer.status_code == 503
    assert f"no vLLM answers at {behind.url}" in answer.json()["error"]["message"]
