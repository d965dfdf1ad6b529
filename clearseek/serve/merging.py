"""Several answers on their way, read as one."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from clearseek.serve.answering import Answering, Delta


async def merged(answerings: Sequence[Answering]) -> AsyncIterator[tuple[int, Delta]]:
    """What all of them give, as it comes, each with the number of its answering; raises what one of them raises."""
    inbox = _Inbox()
    readers = [asyncio.create_task(_read(number, one, inbox)) for number, one in enumerate(answerings)]
    try:
        left = len(readers)
        while left:
            number, got = await inbox.take()
            if isinstance(got, Exception):
                raise got
            left -= got is None
            if got is not None:
                yield number, got
    finally:
        for reader in readers:
            reader.cancel()


async def _read(number: int, answering: Answering, inbox: "_Inbox") -> None:
    try:
        async for delta in answering:
            inbox.put(number, delta)
    except Exception as error:  # noqa: BLE001  raised again by whoever reads
        inbox.put(number, error)
    else:
        inbox.put(number, None)


class _Inbox:
    def __init__(self) -> None:
        self._held: deque[tuple[int, Delta | Exception | None]] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, number: int, got: Delta | Exception | None) -> None:
        self._held.append((number, got))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> tuple[int, Delta | Exception | None]:
        if not self._held:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._held.popleft()
