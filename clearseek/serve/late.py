"""Responses to requests whose model has to be opened first, which can take minutes: signs of life meanwhile."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from clearseek.config.errors import InputError, RunError
from clearseek.serve.errors import ApiError, as_api_error
from clearseek.serve.state import state_of
from clearseek.serve.streaming import HEADERS, Signs, event, to_json, watch

Failure = Callable[[ApiError], bytes]


def plain_failure(error: ApiError) -> bytes:
    """The event that tells of an error in streams of OpenAI's and DeepSeek's."""
    return event(error.body)


async def in_time(
    request: Request, begin: Coroutine[Any, Any, Response], failure: Failure | None
) -> Response:
    """The response that `begin` comes to; after a while of silence one that begins at once, and ends as that does.

    `failure` makes the last event of a stream that comes to nothing; None: the answer is whole. Until then an error
    is raised, and has a status of its own.
    """
    seconds = state_of(request).settings.keep_alive_seconds
    beginning = asyncio.create_task(begin)
    done, _ = await asyncio.wait([beginning], timeout=seconds)
    return beginning.result() if done else _Late(beginning, seconds, failure)


class _Late(Response):
    def __init__(self, beginning: asyncio.Task[Response], seconds: float, failure: Failure | None) -> None:
        super().__init__()
        self._beginning, self._seconds, self._failure = beginning, seconds, failure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Give signs of life until there is a response, then send that; nothing where the reader has gone."""
        kind, sign = (
            (b"application/json", b"\n")
            if self._failure is None
            else (b"text/event-stream; charset=utf-8", b": keep-alive\n\n")
        )
        head = [(b"content-type", kind), *HEADERS]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": sign, "more_body": True})
        signs = Signs(send, sign, self._seconds)
        watcher = asyncio.create_task(watch(receive, self._beginning.cancel))
        try:
            await asyncio.wait([self._beginning])
            signs.stop()
            watcher.cancel()
            if not self._beginning.cancelled():
                await self._beginning.result()(scope, receive, _going_on(send))
        except (ApiError, InputError, RunError) as error:
            told = as_api_error(error)
            body = to_json(told.body_at(scope["path"])) if self._failure is None else self._failure(told)
            await send({"type": "http.response.body", "body": body, "more_body": False})
        finally:
            signs.stop()
            watcher.cancel()
            self._beginning.cancel()


def _going_on(send: Send) -> Send:
    """For a response whose head was sent already."""

    async def sending(message: Message) -> None:
        if message["type"] != "http.response.start":
            await send(message)

    return sending
