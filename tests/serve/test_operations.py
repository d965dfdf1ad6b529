"""Running a server: what is counted and logged, who has to wait, who has left, and how it ends."""

import asyncio
import gc
import json
import logging
import re
import signal
import subprocess
import sys
import time
import weakref

import httpx
import pytest

from clearseek.config.server import Server
from clearseek.engine.speculation import Speculation
from clearseek.serve.logs import _Form
from clearseek.serve.registry import Registry
from clearseek.serve.run import _Draining
from clearseek.serve.state import State
from clearseek.serve.tally import Tally
from tests.model.every_family import small
from tests.model.tiny import tiny_model
from tests.serve.live import live, tiny_served, wait_for

QUESTION = [{"role": "user", "content": "12 + 5?"}]


def body(**settings):
    return {"messages": QUESTION, "max_tokens": 8, "seed": 3} | settings


def counted(address, name):
    """The value of a metric of the tiny model, all labels summed."""
    text = httpx.get(f"{address}/metrics").text
    return sum(
        float(value) for value in re.findall(rf"^clearseek:{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)
    )


def test_metrics_count_what_was_answered(tokenizer):
    with live(Registry([tiny_served(tokenizer)])) as address:
        answers = [
            httpx.post(f"{address}/v1/chat/completions", json=body(n=2), timeout=30).json() for _ in range(2)
        ]
        usage = [answer["usage"] for answer in answers]
        assert counted(address, "prompt_tokens_total") == sum(one["prompt_tokens"] for one in usage)
        assert counted(address, "generation_tokens_total") == sum(one["completion_tokens"] for one in usage)
        assert counted(address, "request_success_total") == 4
        assert counted(address, "time_to_first_token_seconds_count") == 4
        assert counted(address, "e2e_request_latency_seconds_count") == 4
        total = sum(one["completion_tokens"] for one in usage)
        assert 0 < counted(address, "inter_token_latency_seconds_count") <= total - 4
        assert counted(address, "prefix_cache_queries_total") > 0
        assert counted(address, "request_generation_tokens_sum") == total
        assert counted(address, "request_prompt_tokens_sum") == 2 * sum(one["prompt_tokens"] for one in usage)
        assert counted(address, "request_params_n_sum") == 4
        assert counted(address, "request_params_max_tokens_sum") == 16
        assert counted(address, "request_inference_time_seconds_count") == 4
        assert counted(address, "num_requests_running") == 0


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_what_is_late_is_the_answer_so_far_and_says_so(tokenizer, path):
    with live(Registry([tiny_served(tokenizer, context=16384)])) as address:
        asked = {"max_tokens": 16000, "timeout_seconds": 0.3, "logit_bias": {str(tokenizer.eos_id): -100}}
        asked |= {"prompt": "12"} if path == "/v1/completions" else {"messages": QUESTION}
        answer = httpx.post(address + path, json=asked, timeout=30).json()
        assert answer["choices"][0]["finish_reason"] == "deadline"
        assert 0 < answer["usage"]["completion_tokens"] < 16000
        streamed = httpx.post(address + path, json=asked | {"stream": True}, timeout=30).text
        assert '"finish_reason":"deadline"' in streamed.replace(" ", "")
        wrong = httpx.post(address + path, json=asked | {"timeout_seconds": 0}, timeout=30)
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "timeout_seconds")
        assert counted(address, "num_requests_running") == 0


def test_metrics_count_right_guesses_by_place(tokenizer):
    served = tiny_served(tokenizer, speculation=Speculation("ngram", 3))
    with live(Registry([served])) as address:
        asked = body(max_tokens=60, temperature=0, logit_bias={str(tokenizer.eos_id): -100})
        httpx.post(f"{address}/v1/chat/completions", json=asked, timeout=30).raise_for_status()
        lines = httpx.get(f"{address}/metrics").text.splitlines()
        accepted = counted(address, "spec_decode_num_accepted_tokens_total")
    name = "clearseek:spec_decode_num_accepted_tokens_per_pos_total"
    told = {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines if line.startswith(name)}
    assert list(told) == [f'{name}{{model_name="tiny",position="{place}"}}' for place in range(3)]
    assert sum(told.values()) == accepted > 0
    assert f"# TYPE {name} counter" in lines


def test_metrics_bear_vllm_s_names_on_request(tokenizer):
    with live(Registry([tiny_served(tokenizer)]), Server(port=0, metrics_prefix="vllm")) as address:
        lines = httpx.get(f"{address}/metrics").text.splitlines()
    assert 'vllm:num_requests_running{model_name="tiny"} 0' in lines
    assert [line for line in lines if not line.startswith(("#", "vllm:"))] == []
    families = [line.split()[2] for line in lines if line.startswith("# TYPE ")]
    assert len(families) == len(set(families))


def test_who_comes_when_all_places_are_taken_is_told_when_to_come_again(tokenizer):
    registry = Registry([tiny_served(tokenizer, num_slots=1, most_waiting=1, context=4096)])
    with live(registry) as address, httpx.Client(base_url=address, timeout=30) as client:
        long = body(stream=True, max_tokens=3000, logit_bias={str(tokenizer.eos_id): -100})
        with (
            client.stream("POST", "/v1/chat/completions", json=long) as first,
            client.stream("POST", "/v1/chat/completions", json=long) as second,
        ):
            assert (first.status_code, second.status_code) == (200, 200)
            refused = client.post("/v1/chat/completions", json=body())
            assert refused.status_code == 429
            assert int(refused.headers["Retry-After"]) > 0
            assert refused.json()["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("stream", [True, False])
def test_who_leaves_frees_their_place(tokenizer, stream):
    model = tiny_served(tokenizer, context=65536)
    with live(Registry([model])) as address, httpx.Client(base_url=address, timeout=30) as client:
        long = body(stream=stream, max_tokens=60_000, logit_bias={str(tokenizer.eos_id): -100})
        if stream:
            with client.stream("POST", "/v1/chat/completions", json=long) as answer:
                next(answer.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/chat/completions", json=long, timeout=0.5)
        wait_for(lambda: model.service.num_running == 0, "the answer is still computed")
        assert counted(address, "request_success_total") == 1
        assert model.tally.ended["abort"] == 1


def test_nothing_is_kept_of_an_answer_that_was_given(tokenizer, monkeypatch):
    """A timer that held each for ten minutes let memory grow by two fifths under load."""
    given = weakref.WeakSet()
    begin = Tally.begin
    monkeypatch.setattr(
        Tally, "begin", lambda tally, answering: (given.add(answering), begin(tally, answering))[1]
    )
    with live(Registry([tiny_served(tokenizer)])) as address:
        for stream in (True, False) * 3:
            httpx.post(f"{address}/v1/chat/completions", json=body(stream=stream, stop=["zz"]), timeout=30)

        def is_forgotten():
            gc.collect()
            return not given

        assert begin is not Tally.begin
        wait_for(is_forgotten, "answers are kept")


def test_a_line_is_logged_without_what_was_said(server, caplog):
    with caplog.at_level("INFO", "clearseek.serve.requests"):
        httpx.post(
            f"{server}/v1/chat/completions",
            json=body(messages=[{"role": "user", "content": "canary-7391"}]),
            timeout=30,
        )
        wait_for(lambda: caplog.records, "no line")
    (told,) = [record.told for record in caplog.records]
    assert {"method", "path", "status", "seconds", "model", "prompt_tokens", "completion_tokens"} <= set(told)
    assert "canary" not in json.dumps(told)


def test_a_path_can_neither_end_its_line_nor_steer_a_terminal():
    told = {"path": "/v1/models/a\n2026-11-29 info forged \x1b[31m\u2028", "status": 404}
    record = logging.makeLogRecord({"msg": "request", "told": told, "levelname": "INFO"})
    line = _Form(as_json=False).format(record)
    assert line.isprintable()
    assert line.endswith("status=404")
    assert json.loads(_Form(as_json=True).format(record))["path"] == told["path"]


def test_every_answer_has_the_id_of_its_line(server, caplog):
    with caplog.at_level("INFO", "clearseek.serve.requests"):
        answers = [httpx.post(f"{server}/v1/chat/completions", json=one) for one in (body(), body(n=-1))]
        answers.append(httpx.get(f"{server}/v1/models", headers={"Host": "elsewhere"}))
        wait_for(lambda: len(caplog.records) == 3, "no line")
    assert [answer.status_code for answer in answers] == [200, 400, 421]
    ids = [record.told["id"] for record in caplog.records]
    assert [answer.headers["x-request-id"] for answer in answers] == ids
    assert [answer.headers["request-id"] for answer in answers] == ids
    assert len(set(ids)) == 3


def test_more_answers_than_can_ever_be_taken_on_are_a_mistake_and_no_rush(tokenizer):
    with live(Registry([tiny_served(tokenizer, num_slots=2, most_waiting=1)])) as address:
        answer = httpx.post(f"{address}/v1/chat/completions", json=body(n=4))
        assert answer.status_code == 400
        assert "4 answers are asked for; this server takes on 3 at once" in answer.text


@pytest.fixture(scope="module")
def checkpoint(tokenizer, tmp_path_factory):
    from clearseek.model.checkpoint import save_model

    directory = tmp_path_factory.mktemp("served") / "tiny"
    directory.mkdir()
    model = tiny_model(small("qwen3", vocab_size=tokenizer.vocab_size, max_position_embeddings=65536))
    save_model(model, directory, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return directory


@pytest.fixture
def process(checkpoint):
    """`clearseek serve` as a process, and its address."""
    command = [sys.executable, "-m", "clearseek", "serve", str(checkpoint), "--port", "0", "--log", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        try:
            line = child.stdout.readline()
            assert line.startswith("serving tiny at http://127.0.0.1:"), line + child.stderr.read()
            yield child, line.split()[-1]
        finally:
            child.kill()


def test_told_to_end_it_answers_those_who_asked_and_nobody_new(process, tokenizer):
    child, address = process
    long = body(stream=True, max_tokens=600, logit_bias={str(tokenizer.eos_id): -100})
    with httpx.Client(base_url=address, timeout=60) as client:
        with client.stream("POST", "/v1/chat/completions", json=long) as answer:
            lines = answer.iter_lines()
            next(lines)
            child.send_signal(signal.SIGTERM)
            wait_for(lambda: client.get("/ready").status_code == 503, "it is still ready")
            refused = client.post("/v1/chat/completions", json=body())
            assert refused.status_code == 503
            assert refused.headers["Retry-After"]
            said = list(lines)
        assert said[-2] == "data: [DONE]"
    assert child.wait(20) == 0


def test_told_twice_it_ends_at_once(process, tokenizer):
    child, address = process
    long = body(stream=True, max_tokens=60_000, logit_bias={str(tokenizer.eos_id): -100})
    with httpx.stream("POST", f"{address}/v1/chat/completions", json=long, timeout=60) as answer:
        lines = answer.iter_lines()  # kept: the answer is left when it goes
        next(lines)
        child.send_signal(signal.SIGTERM)
        wait_for(lambda: httpx.get(f"{address}/ready").status_code == 503, "it is still ready")
        child.send_signal(signal.SIGTERM)
        started = time.monotonic()
        assert child.wait(20) == 0
        assert time.monotonic() - started < 8
    assert "Traceback" not in child.stderr.read()


def test_told_again_while_it_looks_whether_to_end_it_ends(tokenizer, monkeypatch):
    """A signal comes between any two steps of the program."""
    registry = Registry([tiny_served(tokenizer)])
    server = _Draining(Server(port=0), registry, None)

    def told_meanwhile(state):
        server.handle_exit(signal.SIGTERM, None)
        return 1

    monkeypatch.setattr(State, "num_answering", property(told_meanwhile))
    server.handle_exit(signal.SIGTERM, None)
    assert asyncio.run(server.on_tick(1))
    registry.close(0)


REACH_OUT = """
import logging, socket, sys, urllib.request
from clearseek.serve.outbound import refuse_outbound
logging.basicConfig(format="%(message)s")
refuse_outbound(allowed=["192.0.2.7"])
def reach(what):
    try:
        what()
    except PermissionError as error:
        print("refused", error)
    except OSError as error:
        inner = getattr(error, "reason", None)
        print("refused" if isinstance(inner, PermissionError) else "tried")
def connect(host, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.settimeout(0.2)
        one.connect((host, 9))
reach(lambda: connect("127.0.0.1"))
reach(lambda: connect("192.0.2.7"))
reach(lambda: connect("192.0.2.1"))
reach(lambda: connect("192.0.2.1", socket.SOCK_DGRAM))
reach(lambda: urllib.request.urlopen("http://example.org/", timeout=1))
reach(lambda: socket.getaddrinfo("example.org", 80))
reach(lambda: socket.getnameinfo(("192.0.2.1", 80), 0))
"""


def test_nothing_leaves_this_machine():
    done = subprocess.run(
        [sys.executable, "-c", REACH_OUT], capture_output=True, text=True, timeout=60, check=True
    )
    words = [line.split()[0] for line in done.stdout.splitlines()]
    assert words == ["tried", "tried", *["refused"] * 5]
    assert "refused a connection to example.org: nothing leaves this machine" in done.stderr
