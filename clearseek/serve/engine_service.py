"""An engine as the event loop sees it: requests go to it, what is new of their answers comes back.

Tokens become text here, while the engine computes the next ones.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

import numpy as np

from clearseek.config.errors import InputError
from clearseek.engine.request import Request
from clearseek.serve.answering import Answering, Delta
from clearseek.serve.engine_line import Line
from clearseek.serve.engine_words import (
    AnswerNow,
    Begin,
    Begun,
    Cancel,
    Counts,
    Failed,
    News,
    ReadState,
    State,
    Word,
)
from clearseek.serve.errors import Busy, Ending, KnownFailure
from clearseek.text.incremental import IncrementalDecoder
from clearseek.text.tokenizer import Tokenizer

_LOST = "the engine's process has ended; the model is opened anew when it is asked for again"


class EngineService:
    """Answers requests with one engine. `most_waiting`: samples that may wait for their turn."""

    def __init__(self, line: Line, tokenizer: Tokenizer, most_waiting: int = 256) -> None:
        self.line, self.tokenizer, self.most_waiting = line, tokenizer, most_waiting
        self.counts = Counts()
        self._numbers = count()
        self._asked = 0  # samples taken on and not ended
        self._begun: dict[int, asyncio.Future[Any]] = {}
        self._answers: dict[int, _Answer] = {}
        self._connecting = asyncio.Lock()
        self._connected: asyncio.AbstractEventLoop | None = None  # the loop that listens
        self._reading, self._num_reading = asyncio.Lock(), 0  # for embeddings
        self._closing = False

    @property
    def hidden_size(self) -> int:
        """Numbers of a state."""
        return self.line.hidden_size

    @property
    def is_lost(self) -> bool:
        """Whether the engine has ended by itself; nothing is answered any more."""
        return self.line.is_lost

    @property
    def num_running(self) -> int:
        """Answers in the engine's seats."""
        return min(self._asked, self.line.num_slots)

    @property
    def num_waiting(self) -> int:
        """Answers that wait for a seat."""
        return max(self._asked - self.line.num_slots, 0)

    async def submit(self, request: Request) -> Answering:
        """Begin with a request. InputError where it can't be answered, `Busy` where too many wait."""
        self._check(request)
        number = next(self._numbers)
        answering = Answering(
            request, lambda: self._order(Cancel(number)), lambda: self._order(AnswerNow(number))
        )
        self._answers[number] = _Answer(answering, self.tokenizer)
        self._asked += request.num_drawn
        try:
            await self._ask(Begin(number, request))
        except BaseException:
            answering.cancel()
            raise
        return answering

    def _check_open(self) -> None:
        if self._closing:
            raise Ending
        if self.is_lost:
            raise KnownFailure("engine_failed", _LOST)

    def _check(self, request: Request) -> None:
        self._check_open()
        room = self.line.num_slots + self.most_waiting
        if request.num_drawn > room:
            raise InputError(
                f"{request.num_drawn} answers are asked for; this server takes on {room} at once"
            )
        if self._asked + request.num_drawn > room:
            raise Busy(f"{self.num_waiting} requests wait already; try again later")

    async def mean_state(self, tokens: list[int]) -> np.ndarray:
        """The mean of the last hidden states of some tokens, at unit length [hidden]; answers go on meanwhile."""
        mean: np.ndarray = await self._ask(ReadState(next(self._numbers), tokens))
        return mean

    async def mean_states(
        self, prompts: Iterable[list[int]], has_left: Callable[[], bool]
    ) -> list[np.ndarray]:
        """The mean states of several, until who asked `has_left`; one request at a time. `Busy` where too many wait."""
        self._check_open()
        if self._num_reading > self.most_waiting:
            raise Busy(f"{self._num_reading} requests for embeddings wait already; try again later")
        self._num_reading += 1
        try:
            async with self._reading:
                return [await self.mean_state(prompt) for prompt in prompts if not has_left()]
        finally:
            self._num_reading -= 1

    def close(self, seconds: float) -> None:
        """Cancel what is on its way and end the engine."""
        self._closing = True
        self.line.close(seconds)

    async def _ask(self, order: Begin | ReadState) -> Any:
        """Order something, and wait for what comes of it."""
        loop = asyncio.get_running_loop()
        if self._connected is not loop:
            async with self._connecting:
                if self._connected is not loop:
                    await self.line.connect(self._hear, self._lose)
                    self._connected = loop
        asked = self._begun[order.number] = loop.create_future()
        try:
            self.line.order(order)
            return await asked
        finally:
            del self._begun[order.number]

    def _order(self, order: Cancel | AnswerNow) -> None:
        if order.number in self._answers:
            self.line.order(order)

    def _hear(self, words: list[Word], counts: Counts) -> None:
        self.counts = counts
        for word in words:
            match word:
                case News():
                    if word.number in self._answers and self._answers[word.number].put(word):
                        self._end(word.number, 1)
                case Begun(number):
                    self._settle(number, None)
                case State(number, mean):
                    self._settle(number, mean)
                case Failed(number, error):
                    self._fail(number, error)

    def _settle(self, number: int, result: Any) -> None:
        asked = self._begun.get(number)
        if asked is not None and not asked.done():
            asked.set_result(result)

    def _fail(self, number: int, error: Exception) -> None:
        asked = self._begun.get(number)
        if asked is not None and not asked.done():
            asked.set_exception(error)
        if number in self._answers:
            answer = self._answers[number]
            answer.answering.fail(error)
            self._end(number, answer.left)

    def _end(self, number: int, num_samples: int) -> None:
        self._asked -= num_samples
        answer = self._answers[number]
        answer.left -= num_samples
        if not answer.left:
            del self._answers[number]

    def _lose(self) -> None:
        for number in [*self._begun, *self._answers]:
            self._fail(number, KnownFailure("engine_failed", _LOST))


class _Answer:
    """One request's, with what makes text of its tokens."""

    def __init__(self, answering: Answering, tokenizer: Tokenizer) -> None:
        self.answering, self.left = answering, answering.request.num_drawn
        self._tokenizer = tokenizer
        self._decoders: dict[int, IncrementalDecoder] = {}  # by sample

    def put(self, news: News) -> bool:
        """Hand something new to whoever asked, with its text; whether a sample has ended by it."""
        answering = self.answering
        answering.seated_at = answering.seated_at or news.seated_at
        if news.cached_tokens is not None:
            answering.cached_tokens = news.cached_tokens
        text = self._text(news) if news.text is None else news.text
        delta = Delta(
            news.sample, news.tokens, news.log_probs, news.alternatives, text, news.completion, news.draws
        )
        answering.put(delta)
        return news.completion is not None

    def _text(self, news: News) -> str:
        if news.sample not in self._decoders:
            shown = self.answering.request.sampling.shown_ids
            self._decoders[news.sample] = IncrementalDecoder(self._tokenizer, shown)
        decoder, completion = self._decoders[news.sample], news.completion
        ends = completion is not None and completion.finish_reason == "stop"
        text = decoder.feed_all(news.tokens[:-1] if ends else news.tokens)
        return text if completion is None else text + decoder.close()
