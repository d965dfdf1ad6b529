"""One request on its way, as the event loop sees it: what is new of each of its samples, until all have ended."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol, Self

from clearseek.engine.request import Alternatives, Completion, Draw, Request
from clearseek.serve.errors import ApiError


@dataclass
class Delta:
    """What is new of one sample. `completion` comes with the last; the token that ended it has no text."""

    sample: int
    tokens: list[int] = field(default_factory=list)
    log_probs: list[float] = field(default_factory=list)
    alternatives: list[Alternatives] = field(default_factory=list)  # where `top_log_probs` asks
    text: str = ""
    completion: Completion | None = None
    draws: list[Draw] = field(default_factory=list)  # where `processed_log_probs` asks

    def merge(self, later: "Delta") -> None:
        """What came after it, as one."""
        self.tokens += later.tokens
        self.log_probs += later.log_probs
        self.alternatives += later.alternatives
        self.draws += later.draws
        self.text += later.text
        self.completion = later.completion or self.completion


class Observer(Protocol):
    """Whoever counts what comes and when."""

    def note_tokens(self, answering: "Answering", count: int, seconds: float | None) -> None:
        """New tokens of a sample, each `seconds` after the one before; None: they are its first."""
        ...

    def note_end(self, answering: "Answering", reason: str, count: int, now: float) -> None:
        """A sample has ended after `count` tokens."""
        ...


class Answering:
    """An async iterator of deltas. Several of one sample become one where nobody asked in between."""

    def __init__(self, request: Request, cancel: Callable[[], None], answer_now: Callable[[], None]) -> None:
        """`cancel` and `answer_now` reach whoever computes it; both may be called at any time, from the loop."""
        self.request = request
        self.cancel, self.answer_now = cancel, answer_now
        self.cached_tokens = 0  # of the prompt; known from the first delta on
        self.begun_at = monotonic()
        self.seated_at: float | None = None  # when its first sample left the queue
        self.first_at: float | None = None  # when its first token came
        self._observer: Observer | None = None
        self._patience: asyncio.TimerHandle | None = None  # which holds it until it is cancelled
        self._told: dict[
            int, tuple[int, float | None]
        ] = {}  # of each sample: tokens, and when the latest came
        self._news: dict[int, Delta] = {}
        self._left = request.num_drawn  # samples that have not ended
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delta:
        while not self._news:
            if self._error is not None:
                raise self._error
            if not self._left:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._news.pop(next(iter(self._news)))

    @property
    def is_over(self) -> bool:
        """Whether there will be nothing more."""
        return not self._left or self._error is not None

    def put(self, delta: Delta) -> None:
        """Something new; called in the loop. Nothing is new of one that failed."""
        self._stop_waiting()
        if self._error is not None:
            return
        self._left -= delta.completion is not None
        if self._observer is not None:
            self._tell(self._observer, delta)
        if delta.sample in self._news:
            self._news[delta.sample].merge(delta)
        else:
            self._news[delta.sample] = delta
        self._wake()

    def observe(self, observer: Observer) -> None:
        """Tell somebody what comes, and what has come; before anybody reads it."""
        self._observer = observer
        for delta in self._news.values():
            self._tell(observer, delta)

    def _tell(self, observer: Observer, delta: Delta) -> None:
        now, count = monotonic(), len(delta.tokens)
        before, latest = self._told.get(delta.sample, (0, None))
        if count:
            self.first_at = self.first_at or now
            observer.note_tokens(self, count, None if latest is None else (now - latest) / count)
            latest = now
        self._told[delta.sample] = before + count, latest
        if delta.completion is not None:
            observer.note_end(self, delta.completion.finish_reason, before + count, now)

    @property
    def seconds_to_first(self) -> float | None:
        """From asking to the first token; None: there is none yet."""
        return None if self.first_at is None else self.first_at - self.begun_at

    def fail(self, error: Exception) -> None:
        """It will not be finished; called in the loop."""
        self._stop_waiting()
        self._error = error
        self._wake()

    def wait_at_most(self, seconds: float) -> None:
        """Give it up where it has not begun after so long."""
        if not self._news and not self.is_over:
            self._patience = asyncio.get_running_loop().call_later(seconds, self._give_up, seconds)

    def _give_up(self, seconds: float) -> None:
        self.fail(
            ApiError(
                503, f"no answer began within {seconds:g} s", "service_unavailable", code="no_answer_in_time"
            )
        )
        self.cancel()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class AnswerService(Protocol):
    """Whoever answers requests: the engine in its process, a vLLM server, a test's stand-in."""

    async def submit(self, request: Request) -> Answering:
        """Begin with a request. InputError where it can't be answered, `errors.Busy` where too many wait."""
        ...

    @property
    def is_lost(self) -> bool:
        """Whether it has ended by itself, and answers nothing any more."""
        ...

    @property
    def num_running(self) -> int:
        """Answers being computed."""
        ...

    @property
    def num_waiting(self) -> int:
        """Answers that wait for their turn."""
        ...

    def close(self, seconds: float) -> None:
        """End what is on its way and give the machine back; waits at most so long."""
        ...
