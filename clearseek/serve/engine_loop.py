"""Steps an engine for many streams: orders in from any thread, what is new of every answer out.

All streams are told of at once, and the seldomer the more there are: a stream's tokens of some steps become one delta.
So whoever listens is kept busy little, and never falls behind. A first token is told at once.
"""

import logging
import math
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

import numpy as np
import torch

from clearseek.config.errors import InputError, RunError
from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.engine import Engine
from clearseek.engine.request import Completion
from clearseek.engine.sequence import Sequence
from clearseek.serve.engine_words import (
    AnswerNow,
    Begin,
    Begun,
    Cancel,
    Counts,
    Failed,
    News,
    Order,
    ReadState,
    State,
    Word,
)
from clearseek.serve.errors import KnownFailure

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0  # how long it sleeps at most while there is nothing to do
_TELL_SECONDS = (
    0.0015  # of each stream, between two times that all are told of; one eye reads ten words a second
)
_MOST_TELL_SECONDS = 0.1
_MOST_AT_ONCE = 64
_GATHER_SECONDS = (
    0.00015  # of each stream, in which orders wait for others: each of them is a step of its own
)
_MOST_GATHER_SECONDS = 0.01
_MOST_CALL_SECONDS = 0.02  # of several tokens: an answer that ends in the middle keeps its seat until the end


class EngineLoop:
    """`tell` is called with what is new, in the thread that runs the loop or, with states, in another."""

    def __init__(self, engine: Engine, tell: Callable[[list[Word], Counts], None]) -> None:
        self.engine = engine
        self._say = tell
        self._orders: deque[Order] = deque()
        self._wake = threading.Event()
        self._streams: dict[Sequence, _Stream] = {}
        self._answers: dict[int, list[Sequence]] = {}
        self._words: list[Word] = []
        self._at_once, self._told_at, self._closing = 1, 0.0, False
        self._reader = ThreadPoolExecutor(1, "clearseek-states")

    def order(self, order: Order) -> None:
        """Have something done soon; from any thread."""
        if isinstance(order, ReadState):
            self._reader.submit(self._read, order)
            return
        self._orders.append(order)
        self._wake.set()
        self.engine.bell.ring()

    def close(self) -> None:
        """Let `run` cancel what is on its way and end; from any thread."""
        self._closing = True
        self._wake.set()
        self.engine.bell.ring()

    def run(self) -> None:
        """Until it is closed."""
        while not self._closing:
            if not self._streams:
                self._wake.wait(_LOOK_SECONDS)
                self._wake.clear()
            self.engine.bell.silence()
            while self._orders:
                self._obey(self._orders.popleft())
            if self._streams:
                self._step_or_fail()
            self._hand_over()
        for number in list(self._answers):
            self._cancel(number)
        self._hand_over()
        self._reader.shutdown(cancel_futures=True)

    def _obey(self, order: Order) -> None:
        match order:
            case Begin():
                self._begin(order)
            case Cancel(number):
                self._cancel(number)
            case AnswerNow(number):
                self._answer_now(number)

    def _read(self, order: ReadState) -> None:
        try:
            word: Word = State(order.number, mean_state(self.engine, order.tokens))
        except Exception:  # noqa: BLE001  told to whoever asked
            _LOG.exception("the engine failed to read a text")
            word = Failed(order.number, RunError("the engine failed to read it; the server's log says why"))
        self._say([word], self._counts())

    def _step_or_fail(self) -> None:
        try:
            self._step()
        except Exception:  # noqa: BLE001  whatever it is, somebody waits for an answer
            _LOG.exception("the engine failed; what it was answering is lost")
            error = KnownFailure(
                "engine_failed", "the engine failed while it answered; the server's log says why"
            )
            self._words += [Failed(number, error) for number in self._answers]
            for answer in list(self._streams):
                self._forget(answer)
                self.engine.cancel(answer)

    def _step(self) -> None:
        started, before = monotonic(), self.engine.slots.num_sampled.copy()
        for answer, completion in self.engine.step(at_once=self._at_once):
            self._finish(answer, completion)
        now, patience = monotonic(), min(_TELL_SECONDS * len(self._streams), _MOST_TELL_SECONDS)
        turns = int((self.engine.slots.num_sampled - before).max())
        self._pace(now - started, turns, min(patience, _MOST_CALL_SECONDS))
        is_time = now - self._told_at >= patience
        if is_time:
            self._told_at = now
        self._tell_news(started, is_time)

    def _tell_news(self, started: float, of_all: bool) -> None:
        """What is new `of_all` streams, or of those alone that were never told of."""
        slots = self.engine.slots
        for slot in slots.taken:
            answer = slots.at(slot)
            stream, count = self._streams[answer], int(slots.num_sampled[slot])
            if stream.told and not of_all:
                continue
            stream.seated_at = stream.seated_at or started
            if count > stream.told and not math.isnan(slots.log_probs[slot, count - 1]):
                new = slice(stream.told, count)
                self._words.append(
                    stream.news(slots.tokens[slot, new].tolist(), slots.log_probs[slot, new].tolist())
                )

    def _pace(self, seconds: float, turns: int, wanted: float) -> None:
        """As many tokens at once as take so long as is `wanted`, by how long the latest `turns` took; orders gather."""
        if turns < self._at_once:
            return  # prompts were read, or answers ended
        self._at_once = min(max(int(wanted * turns / seconds), 1), 2 * self._at_once, _MOST_AT_ONCE)
        gathering = min(_GATHER_SECONDS * len(self._streams), _MOST_GATHER_SECONDS)
        self.engine.bell.listen_from(int(gathering * turns / seconds))

    def _begin(self, order: Begin) -> None:
        try:
            answers = self.engine.submit(order.request)
        except InputError as error:
            self._words.append(Failed(order.number, error))
            return
        except Exception:  # noqa: BLE001  told to whoever asked
            _LOG.exception("the engine failed to take on a request")
            failure = RunError("the engine failed to take it on; the server's log says why")
            self._words.append(Failed(order.number, failure))
            return
        self._answers[order.number] = list(answers)
        self._streams |= {answer: _Stream(order.number, answer) for answer in answers}
        self._words.append(Begun(order.number))

    def _cancel(self, number: int) -> None:
        for answer in list(self._answers.get(number, ())):
            completion = self.engine.cancel(answer)
            if completion is not None:
                self._finish(answer, completion)

    def _answer_now(self, number: int) -> None:
        for answer in self._answers.get(number, ()):
            try:
                self.engine.answer_now(answer)
            except InputError as error:
                _LOG.info("not told to answer now: %s", error)

    def _finish(self, answer: Sequence, completion: Completion) -> None:
        stream = self._streams[answer]
        new = slice(stream.told, None)
        self._words.append(stream.news(completion.tokens[new], completion.log_probs[new], completion))
        self._forget(answer)

    def _forget(self, answer: Sequence) -> None:
        number = self._streams.pop(answer).number
        self._answers[number].remove(answer)
        if not self._answers[number]:
            del self._answers[number]

    def _hand_over(self) -> None:
        if self._words:
            words, self._words = self._words, []
            self._say(words, self._counts())

    def _counts(self) -> Counts:
        engine, acceptance = self.engine, self.engine.acceptance
        guessing = (
            sum(acceptance.guessed[:1]),
            sum(acceptance.guessed),
            sum(acceptance.accepted),
            tuple(acceptance.accepted),
        )
        if not engine.is_ready:
            return Counts(0.0, 0, 0, 0, *guessing)
        pool = engine.pool
        usage = (pool.num_blocks - pool.num_free) / (engine.most_tokens // BLOCK_TOKENS)
        return Counts(usage, pool.queries, pool.hits, engine.scheduler.num_paused, *guessing)


class _Stream:
    """How much of one answer was told."""

    def __init__(self, number: int, answer: Sequence) -> None:
        self.number, self.answer, self.told = number, answer, 0
        self.seated_at: float | None = None
        self._pieces = 0  # of the engine's own text, where it has one
        self._has_text = answer.ending is not None and answer.ending.has_text

    def news(self, tokens: list[int], log_probs: list[float], completion: Completion | None = None) -> News:
        """Tokens that were not told yet."""
        answer, text = self.answer, None
        new = slice(self.told, self.told + len(tokens))
        self.told += len(tokens)
        if self._has_text:
            pieces = answer.text[self._pieces :]
            self._pieces += len(pieces)
            text = "".join(pieces)
        found = answer.num_found if answer.sample == 0 else None
        return News(
            self.number,
            answer.sample,
            tokens,
            log_probs,
            answer.alternatives[new],
            answer.draws[new],
            text,
            completion,
            self.seated_at,
            found,
        )


@torch.no_grad()
def mean_state(engine: Engine, tokens: list[int]) -> np.ndarray:
    """The mean of the last hidden states of some tokens, at unit length [hidden]; in whatever thread asks.

    The weights are only read, so answers go on meanwhile.
    """
    model = engine.model
    batch = torch.tensor([tokens], device=model.embedding.weight.device)
    states = model(batch, torch.ones_like(batch), engine.dtype, 0).states[0].float().mean(0)
    mean: np.ndarray = (states / states.norm().clamp_min(1e-12)).cpu().numpy()
    return mean
