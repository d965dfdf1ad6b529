"""Answers over HTTP that end when their reader leaves, and show signs of life while nothing comes."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from clearseek.config.errors import InputError, RunError
from clearseek.serve.errors import ApiError, as_api_error

Produce = Callable[[], Awaitable[dict[str, Any]]]
HEADERS = [(b"cache-control", b"no-store"), (b"x-accel-buffering", b"no")]


def to_json(value: Any) -> bytes:
    """Compact JSON in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def event(value: Mapping[str, Any], name: str | None = None) -> bytes:
    """A server-sent event; the Responses API and Anthropic's name theirs."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + to_json(value) + b"\n\n"


DONE = b"data: [DONE]\n\n"


class EventStream(Response):
    """Server-sent events; `leave` is called when the reader has gone, and at the end.

    `failure` makes the last event of a stream that breaks off.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncIterator[bytes],
        leave: Callable[[], None],
        keep_alive_seconds: float,
        failure: Callable[[ApiError], bytes] = lambda error: event(error.body),
    ) -> None:
        super().__init__(headers=None)
        self._events, self._leave, self._keep_alive = events, leave, keep_alive_seconds
        self._failure = failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until they or the reader end."""
        head = [(b"content-type", b"text/event-stream; charset=utf-8"), *HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        signs = Signs(send, b": keep-alive\n\n", self._keep_alive)
        watcher = asyncio.create_task(watch(receive, self._leave))
        try:
            async for piece in self._events:
                signs.note()
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            signs.stop()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except (ApiError, InputError, RunError) as error:
            body = self._failure(as_api_error(error))
            await send({"type": "http.response.body", "body": body, "more_body": False})
        finally:
            signs.stop()
            watcher.cancel()
            self._leave()


class WholeAnswer(Response):
    """One JSON object that takes a while; where it takes long, blank lines come before it, as DeepSeek does."""

    def __init__(self, produce: Produce, leave: Callable[[], None], keep_alive_seconds: float) -> None:
        super().__init__()
        self._produce, self._leave, self._keep_alive = produce, leave, keep_alive_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer when it is there."""
        watcher = asyncio.create_task(watch(receive, self._leave))
        producing = asyncio.ensure_future(self._produce())
        try:
            done, _ = await asyncio.wait([producing], timeout=self._keep_alive)
            if done:
                await self._at_once(producing)(scope, receive, send)
            else:
                await self._later(producing, scope["path"], send)
        finally:
            watcher.cancel()
            producing.cancel()
            self._leave()

    def _at_once(self, producing: "asyncio.Future[dict[str, Any]]") -> Response:
        return JsonResponse(producing.result())

    async def _later(self, producing: "asyncio.Future[dict[str, Any]]", path: str, send: Send) -> None:
        head = [(b"content-type", b"application/json"), *HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        while not producing.done():
            await send({"type": "http.response.body", "body": b"\n", "more_body": True})
            await asyncio.wait([producing], timeout=self._keep_alive)
        try:
            body = producing.result()
        except (ApiError, InputError, RunError) as error:
            body = as_api_error(error).body_at(path)
        await send({"type": "http.response.body", "body": to_json(body), "more_body": False})


class JsonResponse(JSONResponse):
    """Compact JSON in UTF-8."""

    def render(self, content: Any) -> bytes:
        """The body."""
        return to_json(content)


class Signs:
    """Sends `sign` whenever nothing else was sent for `seconds`."""

    def __init__(self, send: Send, sign: bytes, seconds: float) -> None:
        self._send, self._sign, self._seconds = send, sign, seconds
        self._quiet = True
        self._task = asyncio.create_task(self._run())

    def note(self) -> None:
        """Something else was sent."""
        self._quiet = False

    def stop(self) -> None:
        """It is over."""
        self._task.cancel()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._seconds)
            if self._quiet:
                await self._send({"type": "http.response.body", "body": self._sign, "more_body": True})
            self._quiet = True


async def watch(receive: Receive, leave: Callable[[], object]) -> None:
    """Until the reader has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
    leave()
