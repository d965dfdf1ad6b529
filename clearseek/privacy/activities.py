"""What people do with clearseek, done by its commands in processes that are watched: train, serve, chat, trace."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_ADDRESS = re.compile(r"http://127\.0\.0\.1:\d+")
_WATCH, _CODE = Path(__file__).parent / "watch", Path(__file__).parents[2]
_START_SECONDS, _ANSWER_SECONDS, _END_SECONDS, _TRAIN_SECONDS = 300.0, 120.0, 90.0, 1800.0
_SHORT = {"max_tokens": 16}


@dataclass(frozen=True)
class Sandbox:
    """A home of its own for what is run; `seen` is where the watch writes."""

    home: Path

    @property
    def seen(self) -> Path:
        """What the watched processes noted, a JSON object a line."""
        return self.home / "watch.jsonl"

    @property
    def environment(self) -> dict[str, str]:
        """This process's, with the watch on Python's path and everything that is kept inside the home."""
        places = {
            "HOME": "", "XDG_CACHE_HOME": "cache", "XDG_DATA_HOME": "data", "XDG_CONFIG_HOME": "config",
            "XDG_STATE_HOME": "state", "TMPDIR": "tmp", "CLEARSEEK_WATCH": "watch.jsonl",
        }  # fmt: skip
        inside = {name: str(self.home / place) for name, place in places.items()}
        (self.home / "tmp").mkdir(exist_ok=True)
        path = os.pathsep.join(filter(None, (str(_WATCH), str(_CODE), os.environ.get("PYTHONPATH"))))
        return {**os.environ, **inside, "PYTHONPATH": path, "DO_NOT_TRACK": "1"}

    def run(self, *words: str, said: str = "", seconds: float = _ANSWER_SECONDS) -> str:
        """A command of clearseek's until it ends, with `said` on its standard input. RuntimeError where it fails."""
        done = subprocess.run(
            _command(words), input=said, capture_output=True, text=True, timeout=seconds, check=False,
            cwd=self.home, env=self.environment,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"clearseek {words[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
        return done.stdout

    @contextmanager
    def serving(self, *words: str) -> Iterator[str]:
        """A command that serves, and its address, until it is told to end; what it logs is kept in the home."""
        log = self.home / f"{words[0]}.log"
        with (
            log.open("ab") as errors,
            subprocess.Popen(
                _command(words), stdout=subprocess.PIPE, stderr=errors, text=True, cwd=self.home, env=self.environment
            ) as process,
        ):  # fmt: skip
            try:
                yield _address(process, log)
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(_END_SECONDS)


def train(sandbox: Sandbox) -> str:
    """The whole chain in miniature; says where the run is."""
    run = sandbox.home / "run"
    sandbox.run("run", "smoke", "--out", str(run), seconds=_TRAIN_SECONDS)
    return str(run)


def serve(sandbox: Sandbox, model: str, canary: str) -> None:
    """Type the canary into each of the APIs, whole and streamed."""
    message = [{"role": "user", "content": canary}]
    with sandbox.serving("serve", model, "--port", "0", "--log", "json") as address:
        for streamed in (False, True):
            more = {"stream": streamed}
            ask(address, "/v1/chat/completions", {"messages": message, **_SHORT, **more})
            ask(address, "/v1/responses", {"input": canary, "max_output_tokens": 16, **more})
            ask(address, "/v1/messages", {"model": "deepseek-chat", "messages": message, **_SHORT, **more})
            ask(address, "/v1/completions", {"prompt": canary, **_SHORT, **more})
        ask(address, "/v1/embeddings", {"input": canary})
        ask(address, "/tokenize", {"prompt": canary})


def chat(sandbox: Sandbox, model: str, canary: str) -> None:
    """Talk by the page's own requests with history off, as it is, and in the terminal."""
    with sandbox.serving("serve", model, "--port", "0") as address:
        talk(address, canary)
    sandbox.run("chat", model, "--terminal", "--max-tokens", "16", said=f"{canary}\n")


def chat_that_is_kept(sandbox: Sandbox, model: str, canary: str) -> None:
    """The same with history on: this one has to be found, or the search finds nothing."""
    with sandbox.serving("serve", model, "--port", "0", "--history", str(sandbox.home / "kept")) as address:
        ask(address, "/api/history", {"keeps": True}, "PUT")
        talk(address, canary)


def trace(sandbox: Sandbox, run: str, canary: str) -> None:
    """Ask a run where a text comes from."""
    sandbox.run("trace", run, canary, seconds=_TRAIN_SECONDS)


def talk(address: str, canary: str) -> None:
    """One question by the page's requests, and its answer to the end."""
    conversation = ask(address, "/api/conversations", {})["id"]
    said = ask(address, f"/api/conversations/{conversation}/messages", {"text": canary})
    asked = {"parent": said["id"], "settings": _SHORT}
    ask(address, f"/api/conversations/{conversation}/answers", asked)
    until = time.monotonic() + _ANSWER_SECONDS
    while ask(address, f"/api/conversations/{conversation}")["messages"][-1]["state"] == "writing":
        if time.monotonic() > until:
            raise RuntimeError(f"no answer on the page within {_ANSWER_SECONDS:g} s")
        time.sleep(0.05)


def ask(address: str, path: str, body: Any = None, method: str | None = None) -> Any:
    """A request to the server; its answer as JSON, None where it is a stream."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(
        address + path, data, {"Content-Type": "application/json"}, method=method
    )
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
        request, timeout=_ANSWER_SECONDS
    ) as answer:
        content = answer.read()
        return json.loads(content) if "json" in answer.headers["Content-Type"] else None


def _command(words: tuple[str, ...]) -> list[str]:
    return [sys.executable, "-m", "clearseek", *words]


def _address(process: "subprocess.Popen[str]", log: Path) -> str:
    assert process.stdout is not None
    timer = time.monotonic() + _START_SECONDS
    while line := process.stdout.readline():
        if match := _ADDRESS.search(line):
            return match.group()
        if time.monotonic() > timer:
            break
    raise RuntimeError(f"it said no address: {log.read_text(errors='replace').strip()[-500:]}")
