"""Answers that the server owns: whoever reads one may leave and come back, and only `stop` ends it.

The page builds on this; the API's answers belong to their connection and end with it.
"""

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.serve.errors import ApiError, as_api_error
from clearseek.serve.pieces import Piece, Pieces

_KEPT_SECONDS = 3600.0  # after its end an answer can be fetched for so long
_MOST_KEPT = 1000


@dataclass
class Generation:
    """One answer on its way or ended, of one sample. `about` is the owner's: which conversation, which message."""

    pieces: Pieces
    about: Any = None
    id: str = field(default_factory=lambda: "gen-" + secrets.token_hex(12))
    written: list[Piece] = field(default_factory=list)
    error: str | None = None  # a code that the page has words for, else a message
    ended: float | None = None  # by the monotonic clock
    _task: asyncio.Task[None] | None = None
    _readers: set[asyncio.Future[None]] = field(default_factory=set)  # that wait for more

    def start(self) -> None:
        """Write on until it ends, whether somebody reads or not."""
        self._task = asyncio.get_running_loop().create_task(self._write())

    def stop(self) -> None:
        """End it here; what there is of it stays, its finish reason is "cancelled"."""
        self.pieces.answering.cancel()

    def answer_now(self) -> None:
        """Close the thought at the next token."""
        self.pieces.answering.answer_now()

    @property
    def is_over(self) -> bool:
        """Whether nothing will come any more."""
        return self.ended is not None

    async def attach(self, num_tokens: int = 0) -> AsyncIterator[Piece]:
        """What comes after the first `num_tokens` tokens, then what is new until it ends.

        `num_tokens` is `Piece.num_tokens` of the last piece that was read.
        """
        place = next((i for i, one in enumerate(self.written) if one.num_tokens > num_tokens), None)
        place = len(self.written) if place is None else place
        if place == len(self.written) and self.written and self.written[-1].completion is not None:
            place -= 1  # the last may have no tokens of its own
        while True:
            while place < len(self.written):
                yield self.written[place]
                place += 1
            if self.is_over:
                return
            await self._new_piece()

    async def _new_piece(self) -> None:
        reader = asyncio.get_running_loop().create_future()
        self._readers.add(reader)
        try:
            await reader
        finally:
            self._readers.discard(reader)

    async def _write(self) -> None:
        try:
            async for piece in self.pieces:
                self.written.append(piece)
                self._tell()
        except (ApiError, InputError, RunError) as error:
            self.error = as_api_error(error).written
        finally:
            self.ended = monotonic()
            self._tell()

    def _tell(self) -> None:
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)


class Generations:
    """All of a server's, by id."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Generation] = OrderedDict()

    def start(self, pieces: Pieces, about: Any = None) -> Generation:
        """A new one, on its way."""
        self._forget()
        generation = Generation(pieces, about)
        self._known[generation.id] = generation
        generation.start()
        return generation

    def get(self, id: str) -> Generation | None:
        """One that is on its way or ended not long ago."""
        return self._known.get(id)

    def drop(self, id: str) -> None:
        """Forget one at once, stopping it."""
        generation = self._known.pop(id, None)
        if generation is not None and not generation.is_over:
            generation.stop()

    def running(self) -> list[Generation]:
        """Those on their way."""
        return [one for one in self._known.values() if not one.is_over]

    def _forget(self) -> None:
        now = monotonic()
        ended = [one for one in self._known.values() if one.ended is not None]
        for one in ended:
            if now - (one.ended or now) > _KEPT_SECONDS or len(self._known) >= _MOST_KEPT:
                del self._known[one.id]
