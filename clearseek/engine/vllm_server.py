"""Talking with a vLLM server: one request a connection, bounded waits, and every refusal as one line.

Proxies of the environment are not used: the server is the user's own.
"""

import http.client
import json
import select
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from clearseek.config.errors import InputError, RunError

CONNECT_SECONDS = 10.0
_LOOK_SECONDS = 0.2  # how often to look whether an answer is still waited for
_GONE = (502, 503, 504)  # what a server says that is coming up or going down


class Lost(Exception):
    """The server was not there, or went away before it had answered; asking again may help."""


class Refused(RunError):
    """The server answered that it can't do what it was asked; `status` is HTTP's."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class VllmServer:
    """The address of a server, and the key that it wants, if any. Once `stopped` is set nobody waits on."""

    url: str
    api_key: str | None = None
    stopped: threading.Event = field(default_factory=threading.Event)

    def ask(self, path: str, timeout_seconds: float, body: Any = None) -> Any:
        """The JSON that the server answers (None: nothing) to a GET, or with a `body` to a POST.

        Raises Lost where it is not there, Refused where it says no, InputError where it wants another key, and
        RunError where it does not answer in time or answers no JSON.
        """
        status, raw = self._exchange(path, timeout_seconds, body)
        if status in _GONE:
            raise Lost(f"HTTP {status}")
        if status in (401, 403):
            raise InputError(
                f"vLLM at {self.url} wants a key: set VLLM_API_KEY to the one that it was started with"
            )
        if status != 200:
            raise Refused(f"vLLM at {self.url} refused {path} (HTTP {status}): {_message(raw)}", status)
        if not raw:
            return None
        try:
            return json.loads(raw)
        except ValueError:
            raise RunError(
                f"{self.url}{path} does not answer as vLLM does; check the recipe's engine.url"
            ) from None

    def _exchange(self, path: str, timeout_seconds: float, body: Any) -> tuple[int, bytes]:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
            connection.sock.settimeout(timeout_seconds)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise Lost(_why(error)) from error
        try:
            sent = None if body is None else json.dumps(body).encode()
            connection.request("GET" if body is None else "POST", parts.path + path, sent, self._headers())
            self._await_answer(connection.sock, timeout_seconds)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except TimeoutError as error:
            raise RunError(
                f"vLLM at {self.url} did not answer {path} within {timeout_seconds:g} s"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Lost(_why(error)) from error
        finally:
            connection.close()

    def _await_answer(self, connected: socket.socket, timeout_seconds: float) -> None:
        """Until the first byte is there; TimeoutError if it does not come, RunError if nobody wants it any more."""
        deadline = time.monotonic() + timeout_seconds
        while not select.select([connected], [], [], _LOOK_SECONDS)[0]:
            if self.stopped.is_set():
                raise RunError(f"vLLM at {self.url} was not waited for any longer")
            if time.monotonic() > deadline:
                raise TimeoutError

    def _headers(self) -> dict[str, str]:
        key = {"Authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        return {"Content-Type": "application/json", **key}


def _why(error: BaseException) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error or type(error).__name__).split())[:200]


def _message(raw: bytes) -> str:
    """What an error's body says, in one line."""
    text = raw.decode("utf-8", "replace")
    try:
        said = json.loads(text)
        error = said.get("error", said.get("detail", text)) if isinstance(said, dict) else text
        text = str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        pass  # not JSON: as it is
    return " ".join(text.split())[:300] or "no reason given"
