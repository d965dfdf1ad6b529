"""What takes minutes of the server: ten thousand wrong requests, slow clients by the hundred, the whole description."""

import json
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import httpx
import pytest
import torch

from clearseek.config.server import Server
from clearseek.config.shipped import shipped_model
from clearseek.serve import connections
from clearseek.serve.registry import Registry
from tests.serve.fuzz import statuses
from tests.serve.live import live, tiny_served, tiny_tokenizer
from tests.serve.test_openapi import run_schemathesis

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def address():
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HEAD_SECONDS", 2.0)
        with live(Registry([tiny_served(tiny_tokenizer())]), Server(port=0, body_seconds=2.0)) as address:
            yield address


@pytest.mark.timeout(900)
def test_ten_thousand_wrong_requests_get_4xx_and_nothing_else(address):
    assert statuses(address, 10_000, seed=2) == []
    assert httpx.get(f"{address}/health").status_code == 200


@pytest.mark.timeout(300)
def test_three_hundred_slow_or_half_closed_clients_get_4xx_or_nothing(address):
    parts = urlsplit(address)
    head = HEAD % parts.netloc.encode()
    starts = (
        b"",
        b"POST /v1",
        head,
        head + b"Content-Length: 100\r\n\r\n{",
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nab",
    )
    answers = []

    def ask(number):
        with socket.create_connection((parts.hostname, parts.port), timeout=60) as client:
            client.sendall(starts[number % len(starts)])
            if number % 3 == 0:
                client.shutdown(socket.SHUT_WR)
            answers.append(client.recv(1000))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(300)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(answers) == 300
    assert [one for one in answers if one and not one.startswith(b"HTTP/1.1 4")] == []
    assert httpx.get(f"{address}/health").status_code == 200


@pytest.mark.timeout(1200)
def test_the_server_does_what_its_whole_description_says(address, tmp_path):
    code, report = run_schemathesis(address, tmp_path, 60, 1000)
    assert code == 0, report


@pytest.mark.timeout(300)
def test_the_benchmark_finds_nothing_lost_or_crossed():
    command = [
        sys.executable,
        "-m",
        "benchmarks.serve",
        "--model",
        str(shipped_model()),
        "--clients",
        "4",
        "--seconds",
        "5",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    served = json.loads(done.stdout)["served"]
    assert served["answers"] > 0
    assert (served["lost"], served["crossed_or_wrong"]) == (0, 0)
