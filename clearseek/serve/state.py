"""What a server is made of, as its routes reach it."""

from dataclasses import dataclass, field

from fastapi import Request

from clearseek.config.server import Server
from clearseek.serve.generations import Generations
from clearseek.serve.registry import Registry


@dataclass
class State:
    """One server's parts."""

    settings: Server
    registry: Registry
    generations: Generations = field(default_factory=Generations)
    is_ending: bool = False  # it takes nothing new


def state_of(request: Request) -> State:
    """The parts of the server that a request came to."""
    state: State = request.app.state.parts
    return state
