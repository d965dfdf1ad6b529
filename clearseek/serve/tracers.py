"""The models whose training data a server searches in, opened when somebody first asks."""

import asyncio
from pathlib import Path

from clearseek.trace.excerpt import run_and_stage
from clearseek.trace.tracer import Tracer


class Tracers:
    """The opened tracers of a server, by the model's directory; each is opened once, however many ask for it."""

    def __init__(self) -> None:
        self._opening: dict[Path, asyncio.Task[Tracer]] = {}

    async def of(self, model: Path) -> Tracer:
        """The tracer of what led to a model. InputError or RunError where it can't be; asking again tries again."""
        if model not in self._opening:
            opening = self._opening[model] = asyncio.create_task(asyncio.to_thread(_open, model))
            opening.add_done_callback(lambda done: self._forget_failed(model, done))
        return await asyncio.shield(self._opening[model])

    def _forget_failed(self, model: Path, done: "asyncio.Task[Tracer]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._opening.pop(model, None)


def _open(model: Path) -> Tracer:
    run, stage = run_and_stage(model)
    return Tracer(run, stage=stage)
