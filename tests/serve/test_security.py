"""Who may ask: a page on another origin can neither read nor write; others than this machine need a key."""

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from clearseek.cli.serve import command
from clearseek.config.errors import InputError
from clearseek.config.server import Server
from clearseek.serve.keys import Keys, new_key, read_keys
from clearseek.serve.registry import Registry
from clearseek.serve.run import check_address
from tests.serve.live import live, tiny_served

ASKED = {"messages": [{"role": "user", "content": "12 + 5?"}], "max_tokens": 4}


def ask(address, path="/v1/models", headers=None, method="GET", body=None):
    """Status, headers and JSON of one request, sent exactly so."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        headers = {"Host": parts.netloc} | (headers or {})
        if body is not None:
            headers = {"Content-Type": "application/json", "Content-Length": str(len(body))} | headers
        for name, value in headers.items():
            if value is not None:
                connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        raw = answer.read()
        return answer.status, answer.headers, json.loads(raw) if raw.startswith(b"{") else raw
    finally:
        connection.close()


def post(address, headers=None, path="/v1/chat/completions", body=None):
    return ask(address, path, headers, "POST", json.dumps(ASKED).encode() if body is None else body)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Host": "127.0.0.1:1"}, 421),
        ({"Host": "127.0.0.1.evil.example:PORT"}, 421),
        ({"Host": "localhost:PORT"}, 200),
        ({"Host": "LOCALHOST:PORT"}, 200),
        ({"Host": "[::1]:PORT"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "http://127.0.0.1:PORT"}, 200),
        ({"Host": "localhost:PORT", "Origin": "http://127.0.0.1:PORT"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
    ],
)
@pytest.mark.parametrize("send", [ask, post])
def test_only_ourselves_may_ask(server, headers, status, send):
    port = str(urlsplit(server).port)
    headers = {name: value.replace("PORT", port) for name, value in headers.items()}
    assert send(server, headers=headers)[0] == status


def test_a_page_elsewhere_gets_no_leave(server):
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for headers in ({}, asked, {"Origin": server, "Access-Control-Request-Method": "POST"}):
        _, answered, _ = ask(server, "/v1/chat/completions", headers, "OPTIONS")
        assert not [name for name in answered if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "kind", [None, "text/plain", "text/plain;charset=UTF-8", "multipart/form-data; boundary=x",
             "application/x-www-form-urlencoded"],
)  # fmt: skip
def test_what_a_form_could_send_is_refused(server, kind):
    status, _, answer = post(server, {"Content-Type": kind})
    assert status == 415
    assert answer["error"]["message"] == "the header Content-Type has to be application/json"


def test_a_link_to_us_may_be_followed_and_nothing_be_read_by_it(server):
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(server, "/health", visit)[0] == 200
    framed = visit | {"Sec-Fetch-Dest": "iframe"}
    assert ask(server, "/health", framed)[0] == 403
    assert post(server, visit)[0] == 403


def test_every_answer_has_a_strict_policy(server):
    for path in ("/health", "/v1/models", "/nowhere"):
        headers = ask(server, path)[1]
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["X-Content-Type-Options"] == "nosniff"


# Keys


@pytest.fixture(scope="module")
def keyed(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("keys") / "keys"
    key = new_key(path, "ada")
    with live(Registry([tiny_served(tokenizer)]), Server(port=0), read_keys(path)) as address:
        yield address, key, path


def test_without_its_key_only_health_answers(keyed):
    address, key, _ = keyed
    assert ask(address, "/health")[0] == 200
    for path in ("/v1/models", "/metrics", "/openapi.json", "/nowhere"):
        status, headers, answer = ask(address, path)
        assert (status, headers["WWW-Authenticate"], answer["error"]["code"]) == (
            401,
            "Bearer",
            "invalid_api_key",
        )
    for wrong in ("Bearer nonsense", f"Basic {key}", f"Bearer {key}x", "Bearer \xff", "Bearer"):
        assert ask(address, headers={"Authorization": wrong})[0] == 401
    assert ask(address, headers={"Authorization": f"Bearer {key}"})[0] == 200
    assert ask(address, headers={"x-api-key": key})[0] == 200


def test_a_key_is_kept_as_a_hash_by_its_owner_alone(keyed):
    _, key, path = keyed
    assert key not in path.read_text()
    assert path.stat().st_mode & 0o077 == 0
    assert read_keys(path).owner(key) == "ada"


def test_a_key_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file; make a first key"):
        read_keys(tmp_path / "keys")
    (tmp_path / "keys").write_text("# mine\n\nmy-secret\n")
    with pytest.raises(InputError, match="keys:3: not a name and a hash"):
        read_keys(tmp_path / "keys")


def test_an_address_that_others_reach_needs_a_key():
    with pytest.raises(
        InputError, match=r"0\.0\.0\.0 can be reached from other machines, so a key is needed"
    ):
        check_address(Server(host="0.0.0.0"), Keys(()))
    check_address(Server(host="::1"), Keys(()))


def test_new_key_prints_a_key_that_then_works(tmp_path):
    result = CliRunner().invoke(command, ["--new-key", "--api-key-file", str(tmp_path / "keys")])
    assert result.exit_code == 0
    assert read_keys(tmp_path / "keys").owner(result.stdout.strip()) == "key"
    named = ["--new-key", "--key-name", "mina", "--api-key-file", str(tmp_path / "keys")]
    second = CliRunner().invoke(command, named).stdout.strip()
    assert read_keys(tmp_path / "keys").owner(second) == "mina"
    assert CliRunner().invoke(command, ["--new-key"]).exit_code == 2


def test_without_a_model_the_one_that_comes_along_is_served(monkeypatch):
    served = []
    monkeypatch.setattr(
        "clearseek.serve.run.serve", lambda settings, registry, *rest: served.append(registry)
    )
    monkeypatch.setattr("clearseek.serve.outbound.refuse_outbound", lambda hosts: None)
    assert CliRunner().invoke(command, ["--port", "0"], catch_exceptions=False).exit_code == 0
    assert served[0].names == ["r1-mini"]
    served[0].close(10)
    assert "whose tokenizer" in CliRunner().invoke(command, ["--engine", "vllm"]).output


def test_another_name_has_to_be_given(tokenizer):
    with live(Registry([tiny_served(tokenizer)]), Server(port=0, hosts=("chat.example",))) as address:
        port = urlsplit(address).port
        assert ask(address, headers={"Host": f"chat.example:{port}"})[0] == 200
        assert ask(address, headers={"Host": "chat.example"})[0] == 200  # behind a proxy
        assert ask(address, headers={"Host": "chat.example", "Origin": "https://chat.example"})[0] == 200
        assert ask(address, headers={"Host": "other.example"})[0] == 421


def test_two_hosts_are_none(server):
    parts = urlsplit(server)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        client.sendall(f"GET /v1/models HTTP/1.1\r\nHost: {parts.netloc}\r\nHost: evil\r\n\r\n".encode())
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
