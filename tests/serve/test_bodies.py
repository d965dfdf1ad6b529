"""Bodies that no parser should meet, and clients that take their time: a 4xx each."""

import json
import socket
import time
from urllib.parse import urlsplit

import httpx
import pytest

from clearseek.config.server import Server
from clearseek.serve import anthropic_messages, connections, openai_chat, responses
from clearseek.serve.bodies import check_json
from clearseek.serve.history.history import History
from clearseek.serve.openai_chat_types import ChatRequest
from clearseek.serve.registry import Registry
from tests.serve.live import live, tiny_served
from tests.serve.test_security import post

SAID = '{"messages": [{"role": "user", "content": %s}], "max_tokens": 2}'


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 400, ""),
        (b"{", 400, ""),
        (b"[]", 400, ""),
        (b"null", 400, ""),
        (b'"x"', 400, ""),
        (b"\xff\xfe{}", 400, "the body is not UTF-8 (at byte 0)"),
        (b"[" * 100_000, 400, "the body nests lists and objects more than 100 deep"),
        (
            b'{"metadata": ' * 120 + b"1" + b"}" * 120,
            400,
            "the body nests lists and objects more than 100 deep",
        ),
        (
            SAID.replace("2", "9" * 5000).encode() % b'"x"',
            400,
            "the body holds a number of more than 400 characters",
        ),
        (SAID.replace("2", "NaN").encode() % b'"x"', 400, "the body holds NaN, which JSON has not"),
        (
            SAID.replace("2", "-Infinity").encode() % b'"x"',
            400,
            "the body holds -Infinity, which JSON has not",
        ),
        (SAID.replace("2", "1e999").encode() % b'"x"', 400, ""),
        (SAID.replace("2", str(2**64)).encode() % b'"x"', 400, ""),
        (SAID.replace("2", "true").encode() % b'"x"', 400, ""),
        (SAID.encode() % b'"\\ud800"', 400, "the body holds half a character (a lone surrogate)"),
        (SAID.encode() % b"7", 400, ""),
        (SAID.encode() % b'"\\u0000"', 200, ""),
        (SAID.encode() % b'"\\ud83d\\ude00 [[[ NaN"', 200, ""),
        (SAID.encode() % json.dumps("[" * 300 + "9" * 500).encode(), 400, "the prompt has"),
    ],
)
def test_unsound_bodies_are_refused(server, body, status, message):
    got, _, answer = post(server, body=body)
    assert got == status, answer
    assert status == 200 or answer["error"]["message"].startswith(message)


def test_brackets_and_digits_within_text_are_text():
    check_json(json.dumps(["[{" * 500, "9" * 1000, 'a "quoted" \\ [['] * 3).encode())


@pytest.mark.parametrize(
    "body",
    [
        b'"' + rb"\"" * 2_000_000,
        b'{"a": "' + b"[x] " * 2_000_000 + b'"}',
        (b"1" * 399 + b",") * 20_000,
    ],
)
def test_large_bodies_are_looked_at_in_no_time(body):
    started = time.process_time()
    check_json(b"[" + b"[]," * 200 + body + b"]")
    assert time.process_time() - started < 2


@pytest.fixture(scope="module")
def impatient(tokenizer):
    settings = Server(port=0, max_body_bytes=2000, body_seconds=0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(connections, "HEAD_SECONDS", 0.5)
        with live(Registry([tiny_served(tokenizer)]), settings) as address:
            yield address


def test_a_body_that_is_too_large_is_413(impatient):
    assert post(impatient, body=b"x" * 2001)[0] == 413
    status, _, answer = post(impatient, {"Content-Length": "9" * 15}, body=b"{}")
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


def raw(address, sent, half_close=False):
    """The first bytes that come back, and how many seconds it took."""
    parts = urlsplit(address)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        started = time.monotonic()
        client.sendall(sent)
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return client.recv(1000), time.monotonic() - started


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"


def head(address):
    return HEAD % urlsplit(address).netloc.encode()


def test_chunks_beyond_the_bound_are_413(impatient):
    chunks = b"".join(b"400\r\n" + b"x" * 1024 + b"\r\n" for _ in range(3))
    answer, _ = raw(impatient, head(impatient) + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_head_or_body_that_does_not_come_is_408(impatient):
    for sent in (b"POST /v1/chat/comp", b"", head(impatient) + b"Content-Length: 100\r\n\r\n{"):
        answer, seconds = raw(impatient, sent)
        assert answer.startswith(b"HTTP/1.1 408 "), sent
        assert seconds < 15


def test_half_a_request_from_a_closed_end_gets_nothing_or_4xx(impatient):
    for sent in (b"POST /v1/ch", head(impatient) + b"Content-Length: 100\r\n\r\n{", b"\x16\x03\x01\x02"):
        answer, _ = raw(impatient, sent, half_close=True)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x00\x01\x02\r\n\r\n",
        b"GET /%ff\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: " + b"b" * 200_000 + b"\r\n\r\n",
    ],
)
def test_what_is_no_http_is_4xx(impatient, sent):
    answer, _ = raw(impatient, sent)
    assert answer.startswith(b"HTTP/1.1 4"), answer


@pytest.mark.parametrize(
    ("path", "content", "place"),
    [
        ("/v1/chat/completions", [{"type": "image_url", "image_url": {}}], "content.0.type: Input should be 'text'"),
        ("/v1/messages", [{"type": "image", "source": {}}], "content.0: Input tag 'image' found"),
        ("/v1/chat/completions", 5, "content: Input should be a valid string"),
    ],
)  # fmt: skip
def test_of_several_shapes_the_one_that_was_meant_is_told(server, path, content, place):
    body = {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
    answer = httpx.post(f"{server}{path}", json=body)
    assert answer.status_code == 400
    assert place in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("path", "status", "keys"),
    [
        ("/v1/messages", 400, {"type", "message"}),
        ("/v1/responses", 400, {"message", "type", "param", "code"}),
        ("/chat/completions", 422, {"message", "type", "param", "code"}),
        ("/api/conversations/1/answers", 400, {"message", "type", "param", "code", "values"}),
    ],
)
def test_what_another_shape_has_no_room_for_is_the_client_s_mistake(
    scripted_model, monkeypatch, caplog, path, status, keys
):
    """As each API tells it, and the log holds nothing of it."""

    def narrower(*_):
        ChatRequest.model_validate({"messages": [{"role": "user", "content": "x"}], "user": "canary" * 200})

    monkeypatch.setattr(anthropic_messages, "as_chat", narrower)
    monkeypatch.setattr(responses, "as_chat", narrower)
    monkeypatch.setattr(openai_chat, "ask", narrower)
    monkeypatch.setattr(History, "branch", narrower)
    body = {
        "/v1/messages": {"model": "tiny", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]},
        "/v1/responses": {"input": "x"},
        "/chat/completions": {"messages": [{"role": "user", "content": "x"}]},
    }.get(path, {"parent": "x"})
    with live(Registry([scripted_model[0]])) as address:
        answer = httpx.post(f"{address}{path}", json=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == keys
    assert answer.json()["error"]["message"].startswith("user: ")
    assert "canary" not in answer.text + caplog.text
