"""The response to a chat in any service's shape: streamed or whole, noted in the log, ended when its reader leaves."""

from collections.abc import AsyncIterator
from typing import Any, Protocol

from fastapi import Request
from starlette.responses import Response

from clearseek.serve.errors import ApiError
from clearseek.serve.logs import note
from clearseek.serve.pieces import Pieces
from clearseek.serve.state import state_of
from clearseek.serve.streaming import EventStream, WholeAnswer


class ShapedAnswer(Protocol):
    """An answer as one service tells it."""

    def events(self) -> AsyncIterator[bytes]:
        """As server-sent events."""

    async def whole(self) -> dict[str, Any]:
        """As one object."""

    def failure(self, error: ApiError) -> bytes:
        """The event that tells of an error in mid-stream."""


def reply(request: Request, model: str, pieces: Pieces, answer: ShapedAnswer, is_streamed: bool) -> Response:
    """What goes back to who asked `model`; a stream is kept alive by signs of life."""
    note(request.scope, model=model, prompt_tokens=pieces.prompt_tokens)
    pieces.on_end = lambda: note(request.scope, completion_tokens=pieces.completion_tokens)
    seconds, leave = state_of(request).settings.keep_alive_seconds, pieces.answering.cancel
    if is_streamed:
        return EventStream(answer.events(), leave, seconds, answer.failure)
    return WholeAnswer(answer.whole, leave, seconds)
