"""The engine in a process of its own: answers as in a thread, errors that cross, and every way in which it can end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import torch

from clearseek.config.errors import InputError, RunError
from clearseek.config.server import Server
from clearseek.engine.request import Request, Sampling
from clearseek.model.checkpoint import save_model
from clearseek.serve.engine_line import ProcessLine
from clearseek.serve.engine_process import Opening
from clearseek.serve.engine_words import Counts, Failed, Unpacker, packed
from clearseek.serve.errors import KnownFailure, LacksMemory
from clearseek.serve.open import How, find_sources, open_model
from clearseek.serve.registry import Registry
from tests.model.every_family import small
from tests.model.tiny import tiny_model
from tests.serve.live import live, wait_for
from tests.serve.test_operations import body, counted

HOW, SETTINGS = How(device="cpu", form="float32"), Server(port=0, max_running=4, max_waiting=2)
LONG = Sampling(max_tokens=60_000, ignore_eos=True)
SILENT_SECONDS = 4.0


@pytest.fixture(scope="module")
def directory(tokenizer, tmp_path_factory):
    """A tiny model with a long context."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = small("qwen3", vocab_size=tokenizer.vocab_size, max_position_embeddings=65536)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    save_model(tiny_model(config), folder, **ids)
    tokenizer.save(folder)
    return folder


@pytest.fixture(scope="module")
def model(directory):
    """It, opened."""
    model = open_model("tiny", directory, SETTINGS, HOW)
    yield model
    model.service.close(10)


def process_of(model):
    return model.service.line.process


def is_gone(number):
    """Whether a process has ended; one that nobody has waited for counts."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def tokens_of(model, request):
    tokens = []
    async for delta in await model.service.submit(request):
        tokens += delta.tokens
    return tokens


def test_answers_are_those_of_the_engine_in_a_thread(model, tokenizer):
    from clearseek.engine.session import open_session

    session = open_session(model.root, "cpu", "float32")
    requests = [Request((3, 4, 5 + n), n, 2, Sampling(max_tokens=24, stop=("zz",))) for n in range(6)]
    alone = [group[0].tokens for group in session.engine.generate(requests)]

    async def ask(request):
        first, text = [], ""
        async for delta in await model.service.submit(request):
            if delta.sample == 0:
                first, text = first + delta.tokens, text + delta.text
                said = delta.completion
        assert text == said.text
        return first

    async def all_of_them():
        return [await ask(request) for request in requests]

    assert asyncio.run(all_of_them()) == alone


def test_states_come_from_there_and_answers_go_on_meanwhile(model):
    from clearseek.engine.session import open_session

    whole = open_session(model.root, "cpu", "float32").model
    tokens = torch.tensor([[3, 4, 5]])
    with torch.no_grad():
        mean = whole(tokens, torch.ones_like(tokens), torch.float32, 0).states[0].mean(0)

    async def ask():
        answering = await model.service.submit(Request((3, 4), 1, 1, LONG))
        (found,) = await model.service.mean_states([[3, 4, 5]], lambda: False)
        answering.cancel()
        return found, [delta.completion async for delta in answering][-1].finish_reason

    found, reason = asyncio.run(ask())
    torch.testing.assert_close(torch.tensor(found), mean / mean.norm(), rtol=0, atol=1e-5)
    assert reason == "cancelled"


def test_what_is_wrong_with_a_request_is_told_as_it_is_here(model):
    ask = tokens_of(model, Request((3,), 1, 1, Sampling(max_tokens=70_000)))
    with pytest.raises(InputError, match="exceed the model's context of 65536 tokens"):
        asyncio.run(ask)
    assert (model.service.num_running, model.service.num_waiting) == (0, 0)


def test_a_server_with_it_counts_and_refuses_as_ever_and_outlives_it(directory):
    registry = Registry(sources=find_sources([str(directory)], SETTINGS, HOW))
    long = body(stream=True, max_tokens=30_000, ignore_eos=True, n=6)
    with live(registry, SETTINGS) as address, httpx.Client(base_url=address, timeout=60) as client:
        with client.stream("POST", "/v1/chat/completions", json=long) as answer:
            lines = answer.iter_lines()
            next(lines)
            running, waiting = (counted(address, f"num_requests_{name}") for name in ("running", "waiting"))
            assert (running, waiting) == (4, 2)
            assert counted(address, "kv_cache_usage_perc") > 0
            assert (
                counted(address, "kv_cache_limit_bytes") == registry.loaded()[0].service.line.cache_bytes > 0
            )
            refused = client.post("/v1/chat/completions", json=body())
            assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
        wait_for(lambda: counted(address, "num_requests_running") == 0, "who left is still answered")
        vectors = client.post("/v1/embeddings", json={"input": "12 + 5"}).json()["data"]
        assert len(vectors[0]["embedding"]) == registry.loaded()[0].service.hidden_size
        assert counted(address, "prefix_cache_queries_total") > 0
        _dies_in_the_middle_of_an_answer(registry, client)
        _dies_while_nobody_asks(registry, client)


def _dies_in_the_middle_of_an_answer(registry, client):
    (model,) = registry.loaded()
    long = body(stream=True, max_tokens=30_000, ignore_eos=True)
    with client.stream("POST", "/v1/chat/completions", json=long) as answer:
        lines = answer.iter_lines()
        next(lines)
        process_of(model).kill()
        assert any("the engine's process has ended" in line for line in lines)
    assert client.post("/v1/chat/completions", json=body()).status_code == 200
    assert registry.loaded() != [model]


def _dies_while_nobody_asks(registry, client):
    (model,) = registry.loaded()
    process_of(model).kill()
    process_of(model).wait(10)
    assert client.post("/v1/chat/completions", json=body()).status_code == 200
    assert registry.loaded() != [model]


def test_what_is_wrong_with_a_model_is_one_line(directory, tmp_path):
    folder = tmp_path / "torn"
    folder.mkdir()
    for file in directory.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (weights,) = folder.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises((InputError, RunError), match=weights.name):
        open_model("torn", folder, SETTINGS, HOW)
    with pytest.raises(InputError, match="int5"):
        open_model("tiny", directory, SETTINGS, How(device="cpu", form="int5"))


def test_a_lack_of_memory_is_told_apart(directory):
    """Where the process says so, and where the system kills it."""
    code = (
        "import socket, torch\n"
        "from clearseek.serve import engine_process as e\n"
        "from clearseek.serve.engine_words import Unpacker, packed\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.sendall(packed(e.Opening('big', 'cpu', None, None, 1, 'text')))\n"
        "e._opened = lambda opening: torch.empty(1 << 60, dtype=torch.uint8)\n"
        "e._Process(theirs).run()\n"
        "print(*map(repr, Unpacker().feed(ours.recv(1 << 16))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "LacksMemory('big: there is not enough memory for it')\n", done.stderr
    line = ProcessLine(Opening(str(directory), "cpu", "float32", None, 1, "text"))
    line.process.kill()
    with pytest.raises(LacksMemory, match="was ended by SIGKILL while it opened the model"):
        line.facts()
    line.close(0)


def test_it_does_not_heed_signals_to_end(model):
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process_of(model).send_signal(number)
    answer = tokens_of(model, Request((3, 4, 5), 1, 1, Sampling(max_tokens=8, ignore_eos=True)))
    assert len(asyncio.run(answer)) == 8
    assert os.getsid(process_of(model).pid) != os.getsid(0)


def test_it_ends_when_it_is_closed_in_the_middle_of_an_answer(model):
    """The last test of this model."""

    async def begin():
        await anext(await model.service.submit(Request((3, 4, 5), 1, 1, LONG)))

    asyncio.run(begin())
    time.sleep(SILENT_SECONDS)  # nobody reads what it says: its socket is full
    model.service.close(20)
    assert process_of(model).returncode == 0


def test_who_waits_when_it_is_closed_is_told(directory):
    model = open_model("tiny", directory, SETTINGS, HOW)

    async def ask_and_close():
        answer = await model.service.submit(Request((3, 4, 5), 1, 1, LONG))
        await anext(answer)
        await asyncio.to_thread(model.service.close, 20)
        with pytest.raises(KnownFailure, match="engine"):
            async for _ in answer:
                pass

    asyncio.run(asyncio.wait_for(ask_and_close(), 30))
    assert process_of(model).returncode == 0


def test_it_ends_when_the_server_is_killed(directory):
    command = [sys.executable, "-m", "clearseek", "serve", str(directory), "--port", "0", "--device", "cpu"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            address = server.stdout.readline().split()[-1]
            lists = [file.read_text().split() for file in Path(f"/proc/{server.pid}/task").glob("*/children")]
            (engine,) = [
                one for children in lists for one in children if b"engine_process" in command_of(one)
            ]
            long = body(stream=True, max_tokens=30_000, ignore_eos=True)
            with httpx.stream("POST", f"{address}/v1/chat/completions", json=long, timeout=60) as answer:
                lines = answer.iter_lines()
                next(lines)
                server.kill()
                with suppress(httpx.HTTPError):
                    list(lines)
        finally:
            server.kill()
    wait_for(lambda: is_gone(engine), "the engine's process lives on")


def command_of(number):
    return Path(f"/proc/{number}/cmdline").read_bytes()


def test_it_reaches_no_other_machine():
    """What the privacy test sees as a whole, of this process alone: its hook is there before a model is read."""
    code = (
        "import socket, sys, threading\n"
        "from clearseek.serve import engine_process as e\n"
        "from clearseek.serve.engine_words import packed\n"
        "ours, theirs = socket.socketpair()\n"
        "ours.sendall(packed(e.Opening('x', 'cpu', None, None, 1, 'text')))\n"
        "def opened(opening):\n"
        "    socket.create_connection(('192.0.2.1', 9), 1)\n"
        "e._opened = opened\n"
        "e._Process(theirs).run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert "OutboundRefused: a connection to 192.0.2.1 was refused" in done.stderr


def test_a_failure_crosses_as_it_is():
    error = KnownFailure("engine_failed", "the engine failed")
    ((word, counts),) = Unpacker().feed(packed((Failed(3, error), Counts())))
    assert (type(word.error), word.error.code, str(word.error)) == (
        KnownFailure,
        "engine_failed",
        "the engine failed",
    )
    assert counts == Counts()
