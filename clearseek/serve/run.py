"""Runs the server until it is told to end: then it takes nothing new, and waits for what is on its way."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from time import monotonic
from types import FrameType

import uvicorn

from clearseek.config.errors import InputError, RunError
from clearseek.config.server import Server
from clearseek.serve.app import create_app
from clearseek.serve.connections import PatientProtocol
from clearseek.serve.keys import Keys
from clearseek.serve.registry import Registry
from clearseek.serve.state import State

_START_SECONDS = 30.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_MOST_CONNECTIONS = 4096
_SWITCH_SECONDS = 0.001  # else the loop waits 5 ms whenever a prompt is rendered beside it


def check_address(settings: Server, keys: Keys) -> None:
    """InputError where others could ask without a key."""
    if settings.host not in _LOOPBACK and not keys:
        raise InputError(
            f"{settings.host} can be reached from other machines, so a key is needed: make one by clearseek serve "
            "--new-key --api-key-file KEYS, then add --api-key-file KEYS"
        )


def serve(
    settings: Server, registry: Registry, ready: Callable[[str], None], keys: Keys | None = None
) -> None:
    """Listen and answer; `ready` is told the address. Returns when the process was told to end.

    The first SIGTERM or SIGINT lets answers end, `drain_seconds` at most; the second does not.
    """
    check_address(settings, keys or Keys(()))
    sys.setswitchinterval(_SWITCH_SECONDS)

    async def run() -> None:
        server = _Draining(settings, registry, keys)
        task = asyncio.create_task(server.serve())
        ready(await server.address(task))
        await task

    try:
        asyncio.run(run())
    finally:
        registry.close(settings.drain_seconds)


@asynccontextmanager
async def serving(settings: Server, registry: Registry, keys: Keys | None = None) -> AsyncIterator[str]:
    """The same within a program that has a loop of its own; gives the address, ends with the block."""
    check_address(settings, keys or Keys(()))
    server = _Draining(settings, registry, keys)
    task = asyncio.create_task(server.serve())
    try:
        yield await server.address(task)
    finally:
        server.should_exit = True
        await task
        registry.close(settings.drain_seconds)


class _Draining(uvicorn.Server):
    """uvicorn's server, which goes on answering those that ask already once it was told to end."""

    def __init__(self, settings: Server, registry: Registry, keys: Keys | None) -> None:
        app = create_app(settings, registry, keys)
        super().__init__(
            uvicorn.Config(
                app, host=settings.host, port=settings.port, http=PatientProtocol, ws="none", lifespan="off",
                access_log=False, log_config=None, server_header=False, proxy_headers=False,
                limit_concurrency=_MOST_CONNECTIONS, timeout_graceful_shutdown=2,
            )
        )  # fmt: skip
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        self._state: State = app.state.parts
        self._seconds, self._told_at = settings.drain_seconds, None

    _told_at: float | None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal to end."""
        if self._told_at is not None:
            self.should_exit = self.force_exit = True
        self._told_at = self._told_at or monotonic()
        self._state.is_ending = True

    async def on_tick(self, counter: int) -> bool:
        """Whether to end now; asked ten times a second."""
        if self._told_at is not None and not self.should_exit:
            late = monotonic() - self._told_at > self._seconds
            if late or not self._state.num_answering:  # never back to False: a signal may come in between
                self.should_exit = True
        return await super().on_tick(counter)

    async def address(self, task: "asyncio.Task[None]") -> str:
        """Where it listens, as soon as it does. RunError where it can't."""
        for _ in range(int(_START_SECONDS / 0.01)):
            if self.started or task.done():
                break
            await asyncio.sleep(0.01)
        if not self.started:
            raise RunError("the server did not start; see the line above")
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _is_news(record: logging.LogRecord) -> bool:
    """That an answer was cut off when the server was told to end twice needs no traceback."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
