"""Requests that no server should take, made from valid ones: each is wrong for certain, and is told so by a 4xx."""

import json
import random
import socket
from urllib.parse import urlsplit

VALID = {
    "/v1/chat/completions": {
        "model": "tiny", "messages": [{"role": "user", "content": "12 + 5?"}], "max_tokens": 2, "temperature": 0.5,
        "top_p": 0.9, "n": 1, "seed": 3, "stop": ["x"], "stream": False, "logprobs": True, "top_logprobs": 2,
        "thinking": {"type": "enabled"}, "response_format": {"type": "text"},
    },
    "/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "stream": True},
    "/v1/messages": {
        "model": "tiny", "messages": [{"role": "user", "content": "12 + 5?"}], "max_tokens": 2, "system": "Be brief.",
        "temperature": 0.5, "stop_sequences": ["x"], "stream": False, "thinking": {"type": "enabled"},
    },
    "/v1/responses": {
        "model": "tiny", "input": [{"role": "user", "content": "12 + 5?"}], "max_output_tokens": 2, "stream": False,
        "reasoning": {"effort": "high"}, "text": {"format": {"type": "text"}},
    },
    "/v1/completions": {"prompt": "12", "max_tokens": 2, "echo": False, "n": 1},
    "/beta/completions": {"prompt": [5, 6], "max_tokens": 2},
    "/v1/embeddings": {"input": ["a", "b"], "encoding_format": "float"},
    "/tokenize": {"prompt": "x"},
    "/detokenize": {"tokens": [5, 6]},
}  # fmt: skip
WRONG_TYPES = ({"a": [{}]}, [[[{}]]], {"type": 7}, [None, True, {"x": 1}])
HUGE = ("1" * 500, "-" + "9" * 401, "0." + "3" * 800, "1e" + "9" * 500)


def cases(count, seed):
    """So many (path, headers, body), each wrong for certain."""
    rng = random.Random(seed)
    for _ in range(count):
        path = rng.choice(list(VALID))
        yield path, *rng.choice(KINDS)(rng, path)


def cut(rng, path):
    """Ends too early."""
    body = json.dumps(VALID[path]).encode()
    return {}, body[: rng.randrange(len(body))]


def scrambled(rng, path):
    """Bytes put in or turned over until it is no JSON."""
    body = bytearray(json.dumps(VALID[path]).encode())
    while True:
        body.insert(rng.randrange(len(body)), rng.randrange(256))
        try:
            json.loads(body)
        except ValueError:
            return {}, bytes(body)


def deep(rng, path):
    """Lists or objects in one another, closed or not."""
    depth = rng.choice((101, 1_000, 50_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}")))
    inner = opening * depth + b"1" + closing * rng.choice((0, depth))
    return {}, rng.choice((inner, b'{"messages": ' + inner + b"}"))


def huge_number(rng, path):
    """Longer than any number that somebody means."""
    body = dict(VALID[path], max_tokens="HERE")
    return {}, json.dumps(body).replace('"HERE"', rng.choice(HUGE)).encode()


def out_of_range(rng, path):
    """A number that is none, or too large for its field."""
    value = rng.choice(("NaN", "Infinity", "-Infinity", "1e999", str(2**80), "-1e308", "-1", "0.5"))
    body = dict(VALID[path], max_tokens="HERE")
    return {}, json.dumps(body).replace('"HERE"', value).encode()


def wrong_type(rng, path):
    """A field that holds something else than it should."""
    body = dict(VALID[path])
    body[rng.choice(list(body))] = rng.choice(WRONG_TYPES)
    return {}, json.dumps(body).encode()


def unknown_field(rng, path):
    """A field that there is not."""
    name = rng.choice(("temprature", "", "__class__", "消息", "a" * 5_000, "constructor"))
    return {}, json.dumps(dict(VALID[path], **{name: rng.choice((1, "x", []))})).encode()


def no_object(rng, path):
    """JSON, but no object."""
    return {}, json.dumps(rng.choice((None, True, 7, "x", [], [{}]))).encode()


def bad_text(rng, path):
    """What is no UTF-8, or half a character."""
    body = json.dumps(VALID[path]).encode()
    place = body.index(b'": ') + 3
    bad = rng.choice(
        (b'"\xff"', b'"\xc3\x28"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\udc00x"', b'"\xf8\x88"')
    )
    return {}, b'{"user": ' + bad + b", " + body[1:place] + body[place:]


def wrong_header(rng, path):
    """Another host, site, or kind of body; one that a form could send."""
    headers = rng.choice(
        (
            {"Host": "evil.example"}, {"Origin": "null"}, {"Origin": "https://evil.example"},
            {"Content-Type": "text/plain"},
            {"Sec-Fetch-Site": "cross-site"}, {"Content-Type": "multipart/form-data"}, {"Host": ""},
            {"Content-Type": ""},
        )
    )  # fmt: skip
    return headers, json.dumps(VALID[path]).encode()


KINDS = (
    cut, scrambled, deep, huge_number, out_of_range, wrong_type, unknown_field, no_object, bad_text, wrong_header,
)  # fmt: skip


class Sender:
    """Sends requests over a connection that is opened anew where the server closed it."""

    def __init__(self, address):
        self.parts, self.socket = urlsplit(address), None

    def status(self, path, headers, body):
        """The status that a request gets."""
        head = {
            "Host": self.parts.netloc,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        lines = [f"POST {path} HTTP/1.1", *(f"{name}: {value}" for name, value in (head | headers).items())]
        sent = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
        for _ in range(2):
            if self.socket is None:
                self.socket = socket.create_connection((self.parts.hostname, self.parts.port), timeout=60)
            try:
                self.socket.sendall(sent)
                answer = self._read()
            except (BrokenPipeError, ConnectionResetError):
                answer = b""
            if answer:
                return int(answer.split(b" ", 2)[1])
            self.socket = None  # it was closed after the last answer
        return 0

    def _read(self):
        got = b""
        while b"\r\n\r\n" not in got:
            piece = self.socket.recv(1 << 16)
            if not piece:
                return got
            got += piece
        head, _, rest = got.partition(b"\r\n\r\n")
        lowered = head.lower()
        size = int(lowered.partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
        while len(rest) < size:
            rest += self.socket.recv(1 << 16)
        if b"connection: close" in lowered or b"transfer-encoding" in lowered:
            self.socket.close()
            self.socket = None
        return head


def statuses(address, count, seed):
    """What each of so many wrong requests got that is no 4xx."""
    sender, wrong = Sender(address), []
    for path, headers, body in cases(count, seed):
        status = sender.status(path, headers, body)
        if not 400 <= status < 500:
            wrong.append((status, path, headers, body[:300]))
    return wrong
