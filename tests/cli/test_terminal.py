"""`chat` in a real terminal: dim thoughts, and Ctrl-C that stops an answer but not the program."""

import os
import pty
import select
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

CHAT = """
import sys, time
from types import ModuleType
from tests.cli.fakes import FakeSession

class SlowSession(FakeSession):
    def stream(self, messages, **settings):
        yield from super().stream(messages, **settings)
        if messages[-1]["content"] == "slow":
            while True:
                time.sleep(0.01)
                yield "answer", "."

module = ModuleType("clearseek.engine.session")
module.open_session = lambda *asked, **named: SlowSession()
sys.modules["clearseek.engine.session"] = module
from clearseek.cli.main import main
sys.exit(main(["chat", "m", "--terminal"]))
"""


class Terminal:
    """A program in a terminal of its own: type into it, wait for what it shows."""

    def __init__(self, code: str) -> None:
        self._ours, theirs = pty.openpty()
        environment = {name: text for name, text in os.environ.items() if name != "NO_COLOR"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env=environment | {"TERM": "xterm"},
            preexec_fn=take_terminal,
        )
        os.close(theirs)
        self.shown = ""

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def wait_for(self, text: str, seconds: float = 30.0) -> str:
        """What was shown up to and with `text`, which is then forgotten."""
        deadline = monotonic() + seconds
        while text not in self.shown:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, deadline - monotonic()))
            assert ready, f"{text!r} did not come within {seconds} s; shown: {self.shown!r}"
            self.shown += os.read(self._ours, 4096).decode()
        before, _, self.shown = self.shown.partition(text)
        return before + text

    def press_until(self, key: str, text: str) -> None:
        """Press a key, again if need be: a Ctrl-C just before the line editor waits shows at the next key."""
        for _ in range(20):
            self.type(key)
            try:
                self.wait_for(text, seconds=1.0)
                return
            except AssertionError:
                continue
        raise AssertionError(f"{text!r} never came")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self._ours)


def take_terminal() -> None:
    """Make standard input the terminal that controls this process, so that typed Ctrl-C reaches it."""
    import fcntl
    import termios

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests themselves run in the background
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal():
    opened = Terminal(CHAT)
    yield opened
    opened.close()


def test_thought_is_dim_and_the_answer_is_not(terminal):
    terminal.wait_for(">>> ")
    terminal.type("6*7?\n")
    shown = terminal.wait_for("\n42")
    assert "\x1b[2m6*7\x1b[0m" in shown
    assert "<think>" not in shown


def test_ctrl_c_stops_the_answer_and_ctrl_d_leaves(terminal):
    terminal.wait_for(">>> ")
    terminal.type("slow\n")
    terminal.wait_for("...")
    terminal.type("\x03")
    terminal.wait_for("stopped")
    terminal.wait_for(">>> ")
    terminal.press_until("\x03", "/exit leaves")
    terminal.wait_for(">>> ")
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0
