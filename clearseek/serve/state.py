"""What a server is made of, as its routes reach it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request

from clearseek.config.server import Server
from clearseek.serve.errors import Ending
from clearseek.serve.generations import Generations
from clearseek.serve.history.answers import Answers
from clearseek.serve.history.histories import Histories
from clearseek.serve.logs import at_end
from clearseek.serve.registry import Registry
from clearseek.serve.served_model import ServedModel
from clearseek.serve.tracers import Tracers


@dataclass
class State:
    """One server's parts."""

    settings: Server
    registry: Registry
    generations: Generations = field(default_factory=Generations)
    answers: Answers = field(init=False)  # the page's
    histories: Histories = field(init=False)
    tracers: Tracers = field(default_factory=Tracers)  # the page's, too
    is_ending: bool = False  # it takes nothing new

    def __post_init__(self) -> None:
        self.answers, self.histories = Answers(self.generations), Histories(self.settings.history)

    async def model(self, name: str | None, request: Request) -> ServedModel:
        """The model that a request names, open until the request is over.

        `ApiError` where there is none, or nothing new is taken.
        """
        model = await self._claimed(name)
        at_end(request.scope, model.release)
        return model

    @asynccontextmanager
    async def using(self, name: str) -> AsyncIterator[ServedModel]:
        """The same within a block, for what goes on when its request is over."""
        model = await self._claimed(name)
        try:
            yield model
        finally:
            model.release()

    async def _claimed(self, name: str | None) -> ServedModel:
        if self.is_ending:
            raise Ending
        return await self.registry.get(name)

    @property
    def num_answering(self) -> int:
        """Answers that are computed or wait for their turn, and requests that still have a model."""
        return sum(
            one.service.num_running + one.service.num_waiting + one.num_claims
            for one in self.registry.loaded()
        )


def state_of(request: Request) -> State:
    """The parts of the server that a request came to."""
    state: State = request.app.state.parts
    return state
