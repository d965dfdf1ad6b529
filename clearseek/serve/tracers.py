"""The runs that a server searches in, opened when somebody first asks."""

import asyncio
from pathlib import Path

from clearseek.trace.tracer import Tracer


class Tracers:
    """The opened tracers of a server, by run; each is opened once, however many ask for it."""

    def __init__(self) -> None:
        self._opening: dict[Path, asyncio.Task[Tracer]] = {}

    async def of(self, run: Path) -> Tracer:
        """The tracer of a run. InputError or RunError where it can't be traced; asking again tries again."""
        if run not in self._opening:
            opening = self._opening[run] = asyncio.create_task(asyncio.to_thread(Tracer, run))
            opening.add_done_callback(lambda done: self._forget_failed(run, done))
        return await asyncio.shield(self._opening[run])

    def _forget_failed(self, run: Path, done: "asyncio.Task[Tracer]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._opening.pop(run, None)
