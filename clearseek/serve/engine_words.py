"""What is said between a server and the engine that answers for it, in whatever process that is.

Requests go by numbers, which the server gives them.
"""

import pickle
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from clearseek.engine.request import Alternatives, Completion, Draw, Request

_LENGTH = struct.Struct("<Q")


class Begin(NamedTuple):
    """Answer a request."""

    number: int
    request: Request


class Cancel(NamedTuple):
    """Nobody wants it any more."""

    number: int


class AnswerNow(NamedTuple):
    """Close its thought at the next token."""

    number: int


class ReadState(NamedTuple):
    """Tell the mean state of some tokens."""

    number: int
    tokens: list[int]


Order = Begin | Cancel | AnswerNow | ReadState


class Begun(NamedTuple):
    """A request is taken on."""

    number: int


class State(NamedTuple):
    """What `ReadState` asked for, at unit length [hidden]."""

    number: int
    mean: np.ndarray


class Failed(NamedTuple):
    """It can't be answered, or not to its end."""

    number: int
    error: Exception


class News(NamedTuple):
    """What is new of one sample; with its text where the engine makes it, None: whoever listens does."""

    number: int
    sample: int
    tokens: list[int]
    log_probs: list[float]
    alternatives: list[Alternatives]
    draws: list[Draw]
    text: str | None
    completion: Completion | None
    seated_at: float | None  # by the monotonic clock, which is the machine's
    cached_tokens: int | None  # of its prompt; None: not known yet


class Counts(NamedTuple):
    """How the engine fares."""

    cache_usage: float = 0.0  # of the blocks that it may have, 1 is all
    prefix_queries: int = 0  # tokens
    prefix_hits: int = 0
    num_paused: int = 0
    guesses: int = 0  # times that something was guessed
    guessed: int = 0  # tokens
    accepted: int = 0
    accepted_by_place: tuple[int, ...] = ()  # after the newest token


Word = Begun | State | Failed | News


@dataclass(frozen=True)
class Facts:
    """What a server has to know of an opened model."""

    context: int  # the longest prompt and answer together
    num_slots: int
    hidden_size: int
    defaults: dict[str, Any]  # of `Sampling`
    device: str = "cpu"  # its kind
    warnings: tuple[str, ...] = ()  # to users, of what is passed over in its files
    cache_bytes: int = 0  # that its cache takes at most


def packed(said: object) -> bytes:
    """Something to be said, with its length before it."""
    body = pickle.dumps(said, pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(body)) + body


class Unpacker:
    """Takes what was said apart, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, piece: bytes) -> list[Any]:
        """What is whole by now."""
        self._held += piece
        found: list[Any] = []
        while len(self._held) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._held)[0]
            if len(self._held) < end:
                break
            found.append(pickle.loads(memoryview(self._held)[_LENGTH.size : end].toreadonly()))
            del self._held[:end]
        return found
