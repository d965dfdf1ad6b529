"""What watches, and the space without a network: neither lets anything out, and both say what was tried."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import clearseek.privacy
from clearseek.privacy import space
from clearseek.privacy.packages import denied_that_are_imported, denied_that_come_along

WATCH = Path(clearseek.privacy.__file__).parent / "watch"
CONNECTS = {
    "socket.connect": "socket.socket().connect(('192.0.2.1', 80))",
    "socket.getaddrinfo": "socket.getaddrinfo('example.com', 80)",
    "socket.gethostbyname": "socket.gethostbyname('example.com')",
    "socket.getnameinfo": "socket.getnameinfo(('192.0.2.1', 80), 0)",
    "socket.sendto": "socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 53))",
}
ELSEWHERE = (
    "::ffff:192.0.2.1",
    "127.example.com",
    "localhost.example.com",
    "::192.0.2.1",
    "0.0.0.0.example.com",
)
HERE = """
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname(), timeout=5)
socket.getaddrinfo("localhost", 80)
"""


def watched(tmp_path, code):
    seen = tmp_path / "seen"
    environment = os.environ | {"PYTHONPATH": str(WATCH), "CLEARSEEK_WATCH": str(seen)}
    command = [sys.executable, "-c", f"import socket\n{code}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    return done, [json.loads(line) for line in seen.read_text().splitlines()]


@pytest.mark.parametrize("event", CONNECTS)
def test_what_would_leave_is_refused_and_noted(tmp_path, event):
    done, rows = watched(tmp_path, CONNECTS[event])
    assert "refused while privacy is tested" in done.stderr
    assert rows[0]["attempt"] == event
    assert "socket" in rows[-1]["modules"]


@pytest.mark.parametrize("host", ELSEWHERE)
def test_what_only_begins_like_this_machine_is_elsewhere(tmp_path, host):
    done, rows = watched(tmp_path, f"socket.getaddrinfo({host!r}, 80)")
    assert "refused while privacy is tested" in done.stderr
    assert rows[0]["to"] == host


def test_what_stays_here_is_let_through(tmp_path):
    done, rows = watched(tmp_path, HERE)
    assert (done.returncode, done.stderr) == (0, "")
    assert [row for row in rows if "attempt" in row] == []


def test_the_space_has_nothing_but_the_loopback():
    if not space.can_enter():
        pytest.skip("this machine lets nobody make a network namespace")
    code = (
        "from clearseek.privacy import space; space.raise_loopback(); "
        "print(space.interfaces(), space.reaches_elsewhere())"
    )
    command = [*space.ENTER, sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "['lo'] False\n"


def test_no_package_that_sends_home_comes_along():
    assert denied_that_come_along() == []


def test_one_that_does_is_named(monkeypatch):
    needed = {
        "clearseek": ["rich>=1"],
        "rich": ["Sentry_SDK[x]>=2; python_version > '3'", "wandb; extra == 'w'"],
    }
    monkeypatch.setattr("clearseek.privacy.packages.requires", lambda name: needed.get(name, []))
    assert denied_that_come_along() == ["sentry-sdk"]
    assert denied_that_are_imported(["os", "wandb", "sentry_sdk"]) == ["sentry-sdk", "wandb"]
