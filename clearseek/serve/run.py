"""Runs the server until it is told to end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn

from clearseek.config.errors import RunError
from clearseek.config.server import Server
from clearseek.serve.app import create_app
from clearseek.serve.registry import Registry

_START_SECONDS = 30.0


def serve(settings: Server, registry: Registry, ready: Callable[[str], None]) -> None:
    """Listen and answer; `ready` is told the address. Returns when the process was told to end."""

    async def run() -> None:
        server = _server(settings, registry)
        task = asyncio.create_task(server.serve())
        ready(await _address(server, task))
        await task

    try:
        asyncio.run(run())
    finally:
        registry.close(settings.drain_seconds)


@asynccontextmanager
async def serving(settings: Server, registry: Registry) -> AsyncIterator[str]:
    """The same within a program that has a loop of its own; gives the address, ends with the block."""
    server = _server(settings, registry)
    task = asyncio.create_task(server.serve())
    try:
        yield await _address(server, task)
    finally:
        server.should_exit = True
        await task
        registry.close(settings.drain_seconds)


def _server(settings: Server, registry: Registry) -> uvicorn.Server:
    app = create_app(settings, registry)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=int(settings.drain_seconds),
    )
    return uvicorn.Server(config)


async def _address(server: uvicorn.Server, task: "asyncio.Task[None]") -> str:
    """Where it listens, as soon as it does. RunError where it can't."""
    for _ in range(int(_START_SECONDS / 0.01)):
        if server.started or task.done():
            break
        await asyncio.sleep(0.01)
    if not server.started:
        raise RunError("the server did not start; see the line above")
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
