"""One line for every request, as text or as JSON: when, what path, how it ended, how long; never what was said.

Every answer has its request's id, which is in the line, too: `x-request-id` for OpenAI's and DeepSeek's clients,
`request-id` for Anthropic's.
"""

import json
import logging
import secrets
import sys
import time
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOG = logging.getLogger("clearseek.serve.requests")
_QUIET = ("/health", "/ready", "/metrics")  # asked every few seconds


class Logged:
    """Writes a line when a request of `app` is over; routes add to it through `note`."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Watch one request."""
        if scope["type"] != "http" or scope["path"] in _QUIET:
            await self.app(scope, receive, send)
            return
        started, number = time.monotonic(), f"req_{secrets.token_hex(12)}"
        told: dict[str, Any] = {"status": 0}
        ends: list[Callable[[], None]] = []
        scope.setdefault("state", {}).update(told=told, ends=ends)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                named = [(name, number.encode()) for name in (b"x-request-id", b"request-id")]
                message = {**message, "headers": [*message.get("headers", []), *named]}
            await send(message)

        try:
            await self.app(scope, receive, sending)
        finally:
            for end in ends:
                end()
            line = {"id": number, "method": scope["method"], "path": scope["path"][:200], **told}
            _LOG.info("request", extra={"told": line | {"seconds": round(time.monotonic() - started, 4)}})


def at_end(scope: Scope, act: Callable[[], None]) -> None:
    """Do something when a request is over, however it ends."""
    scope["state"]["ends"].append(act)


def note(scope: Scope, **facts: Any) -> None:
    """Add to a request's line: the model's name, numbers of tokens; nothing that was said."""
    scope.get("state", {}).get("told", {}).update(facts)


class _Form(logging.Formatter):
    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self._as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows in more."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        told = getattr(record, "told", {})
        if self._as_json:
            line = {"time": stamp, "level": record.levelname.lower(), "message": record.getMessage(), **told}
            if record.exc_info:
                line["traceback"] = self.formatException(record.exc_info)
            return json.dumps(line, ensure_ascii=False, default=str)
        facts = " ".join(f"{name}={_plain(value)}" for name, value in told.items())
        text = f"{stamp} {record.levelname.lower()} {record.getMessage()} {facts}".rstrip()
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def _plain(value: object) -> str:
    """What a client said stays on its line: nothing in it can end the line, or steer a terminal."""
    text = str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)


def write_logs(form: str) -> None:
    """Send our lines, and the warnings of the HTTP library, to stderr: `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Form(form == "json"))
    for name, level in (
        ("clearseek", logging.INFO),
        ("uvicorn", logging.WARNING),
        ("asyncio", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
