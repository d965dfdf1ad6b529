"""The engine in a thread of its own: requests from the event loop in, what is new of every answer out.

The thread tells of all streams at once, and the seldomer the more there are: a stream's tokens of some steps become
one delta. So the loop's share of the processor stays small, and it never falls behind. A first token is told at once.
Tokens become text in the loop, while the thread computes the next ones.
"""

import asyncio
import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable
from time import monotonic

import numpy as np
import torch

from clearseek.config.errors import InputError
from clearseek.engine.engine import Engine
from clearseek.engine.request import Completion, Request
from clearseek.engine.sequence import Sequence
from clearseek.serve.answering import Answering, Delta
from clearseek.serve.errors import Busy, Ending, KnownFailure
from clearseek.text.incremental import IncrementalDecoder
from clearseek.text.tokenizer import Tokenizer

_LOG = logging.getLogger(__name__)
_LOOK_SECONDS = 1.0  # how long an idle thread sleeps at most
_TELL_SECONDS = (
    0.0015  # of each stream, between two times that all are told of; one eye reads ten words a second
)
_MOST_TELL_SECONDS = 0.1
_MOST_AT_ONCE = 64
_MOST_CALL_SECONDS = 0.02  # of several tokens that nobody can interrupt: who asks meanwhile waits for the end


class EngineService:
    """Answers requests with one engine. `most_waiting`: samples that may wait for their turn."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, most_waiting: int = 256) -> None:
        self.engine, self.tokenizer, self.most_waiting = engine, tokenizer, most_waiting
        self._orders: deque[Callable[[], None]] = deque()
        self._bell = threading.Event()
        self._streams: dict[Sequence, _Stream] = {}  # the thread's own
        self._outbox: list[tuple[_Stream, Delta]] = []
        self._lock, self._posted = threading.Lock(), False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = 0  # samples taken on and not ended
        self._reading, self._num_reading = asyncio.Lock(), 0  # for embeddings
        self._at_once, self._told_at, self._closing = 1, 0.0, False
        self._thread = threading.Thread(target=self._run, name="clearseek-engine", daemon=True)
        self._thread.start()

    @property
    def num_running(self) -> int:
        """Answers in the engine's seats."""
        return min(self._asked, self.engine.num_slots)

    @property
    def num_waiting(self) -> int:
        """Answers that wait for a seat."""
        return max(self._asked - self.engine.num_slots, 0)

    async def submit(self, request: Request) -> Answering:
        """Begin with a request. InputError where it can't be answered, `Busy` where too many wait."""
        if self._closing:
            raise Ending
        room = self.engine.num_slots + self.most_waiting
        if request.num_drawn > room:
            raise InputError(
                f"{request.num_drawn} answers are asked for; this server takes on {room} at once"
            )
        if self._asked + request.num_drawn > room:
            raise Busy(f"{self.num_waiting} requests wait already; try again later")
        loop = self._loop = asyncio.get_running_loop()
        begun: asyncio.Future[None] = loop.create_future()
        answers: list[Sequence] = []
        answering = Answering(
            request,
            lambda: self._order(lambda: self._cancel(answers)),
            lambda: self._order(lambda: self._answer_now(answers)),
        )
        self._asked += request.num_drawn
        self._order(lambda: self._begin(answering, answers, begun))
        try:
            await begun
        except BaseException:
            answering.cancel()
            raise
        return answering

    @torch.no_grad()
    def mean_state(self, tokens: list[int]) -> np.ndarray:
        """The mean of the last hidden states of some tokens, at unit length [hidden]; in whatever thread asks.

        The weights are only read, so answers go on meanwhile.
        """
        model = self.engine.model
        batch = torch.tensor([tokens], device=model.embedding.weight.device)
        states = model(batch, torch.ones_like(batch), self.engine.dtype, 0).states[0].float().mean(0)
        mean: np.ndarray = (states / states.norm().clamp_min(1e-12)).cpu().numpy()
        return mean

    async def mean_states(
        self, prompts: Iterable[list[int]], has_left: Callable[[], bool]
    ) -> list[np.ndarray]:
        """The mean states of several, until who asked `has_left`; one request at a time. `Busy` where too many wait."""
        if self._closing:
            raise Ending
        if self._num_reading > self.most_waiting:
            raise Busy(f"{self._num_reading} requests for embeddings wait already; try again later")
        self._num_reading += 1
        try:
            async with self._reading:
                return [
                    await asyncio.to_thread(self.mean_state, prompt) for prompt in prompts if not has_left()
                ]
        finally:
            self._num_reading -= 1

    def close(self, seconds: float) -> None:
        """Cancel what is on its way and end the thread."""
        self._closing = True
        self._order(lambda: self._cancel(list(self._streams)))
        self._thread.join(seconds)

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._bell.set()

    # The thread

    def _run(self) -> None:
        while not (self._closing and not self._streams and not self._orders):
            if not self._streams:
                self._bell.wait(_LOOK_SECONDS)
                self._bell.clear()
            while self._orders:
                self._orders.popleft()()
            if self._streams:
                self._step_or_fail()

    def _step_or_fail(self) -> None:
        try:
            self._step()
        except Exception:  # noqa: BLE001  whatever it is, somebody waits for an answer
            _LOG.exception("the engine failed; what it was answering is lost")
            error = KnownFailure(
                "engine_failed", "the engine failed while it answered; the server's log says why"
            )
            for answer, stream in list(self._streams.items()):
                self._call(lambda stream=stream: stream.answering.fail(error))
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
        self._hand_over()

    def _tell_news(self, started: float, of_all: bool) -> None:
        """What is new `of_all` streams, or of those alone that were never told of."""
        slots = self.engine.slots
        for slot in slots.taken:
            answer = slots.at(slot)
            stream, count = self._streams[answer], int(slots.num_sampled[slot])
            if stream.told and not of_all:
                continue
            stream.answering.seated_at = stream.answering.seated_at or started
            if count > stream.told and not math.isnan(slots.log_probs[slot, count - 1]):
                new = slice(stream.told, count)
                self._tell(stream, slots.tokens[slot, new].tolist(), slots.log_probs[slot, new].tolist())

    def _pace(self, seconds: float, turns: int, wanted: float) -> None:
        """As many tokens at once as take so long as is `wanted`, by how long the latest `turns` took."""
        if turns < self._at_once:
            return  # prompts were read, or answers ended
        self._at_once = min(max(int(wanted * turns / seconds), 1), 2 * self._at_once, _MOST_AT_ONCE)

    def _begin(self, answering: Answering, answers: list[Sequence], begun: "asyncio.Future[None]") -> None:
        try:
            answers += self.engine.submit(answering.request)
        except Exception as error:  # noqa: BLE001  told to whoever asked
            if not isinstance(error, InputError):
                _LOG.exception("the engine failed to take on a request")
            self._asked -= answering.request.num_drawn
            self._call(_refuse, begun, error)
            return
        for answer in answers:
            self._streams[answer] = _Stream(answer, answering, self.tokenizer)
        self._call(_accept, begun)

    def _cancel(self, answers: list[Sequence]) -> None:
        for answer in answers:
            completion = self.engine.cancel(answer)
            if completion is not None:
                self._finish(answer, completion)
        self._hand_over()

    def _answer_now(self, answers: list[Sequence]) -> None:
        for answer in answers:
            try:
                self.engine.answer_now(answer)
            except InputError as error:
                _LOG.info("not told to answer now: %s", error)

    def _finish(self, answer: Sequence, completion: Completion) -> None:
        stream = self._streams[answer]
        new = slice(stream.told, None)
        self._tell(stream, completion.tokens[new], completion.log_probs[new], completion)
        self._forget(answer)

    def _forget(self, answer: Sequence) -> None:
        del self._streams[answer]
        self._asked -= 1

    def _tell(
        self,
        stream: "_Stream",
        tokens: list[int],
        log_probs: list[float],
        completion: Completion | None = None,
    ) -> None:
        delta = stream.delta(tokens, log_probs, completion)
        with self._lock:
            self._outbox.append((stream, delta))

    def _hand_over(self) -> None:
        """Have the loop take what is in the outbox, unless it is about to."""
        with self._lock:
            if self._posted or not self._outbox:
                return
            self._posted = True
        self._call(self._deliver)

    def _call(self, act: Callable[..., None], *arguments: object) -> None:
        """In the loop; where it is gone nobody listens any more."""
        assert self._loop is not None, "somebody asked from a loop"
        try:
            self._loop.call_soon_threadsafe(act, *arguments)
        except RuntimeError:
            _LOG.debug("the event loop is closed")

    # The loop

    def _deliver(self) -> None:
        with self._lock:
            outbox, self._outbox, self._posted = self._outbox, [], False
        for stream, delta in outbox:
            stream.put(delta)


class _Stream:
    """How much of one answer was told."""

    def __init__(self, answer: Sequence, answering: Answering, tokenizer: Tokenizer) -> None:
        self.answer, self.answering, self.told = answer, answering, 0
        self._is_first = answer.sample == 0
        self._pieces = 0  # of the engine's own text, where it has one
        ending = answer.ending
        self._decoder = (
            None
            if ending is not None and ending.has_text
            else IncrementalDecoder(tokenizer, answer.request.sampling.shown_ids)
        )

    def delta(self, tokens: list[int], log_probs: list[float], completion: Completion | None) -> Delta:
        """Tokens that were not told yet; as text where the engine has made one."""
        alternatives = self.answer.alternatives[self.told : self.told + len(tokens)]
        self.told += len(tokens)
        if self._is_first and self.answer.num_found is not None:
            self.answering.cached_tokens = self.answer.num_found
        pieces = self.answer.text[self._pieces :] if self._decoder is None else []
        self._pieces += len(pieces)
        return Delta(self.answer.sample, tokens, log_probs, alternatives, "".join(pieces), completion)

    def put(self, delta: Delta) -> None:
        """Hand it to whoever asked, with its text; called in the loop."""
        if self._decoder is not None:
            delta.text = self._text(self._decoder, delta)
        self.answering.put(delta)

    def _text(self, decoder: IncrementalDecoder, delta: Delta) -> str:
        ends = delta.completion is not None and delta.completion.finish_reason == "stop"
        text = "".join(map(decoder.feed, delta.tokens[:-1] if ends else delta.tokens))
        return text if delta.completion is None else text + decoder.close()


def _accept(begun: "asyncio.Future[None]") -> None:
    if not begun.done():
        begun.set_result(None)


def _refuse(begun: "asyncio.Future[None]", error: Exception) -> None:
    if not begun.done():
        begun.set_exception(error)
