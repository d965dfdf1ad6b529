"""Answers to a conversation: asked of a model, owned by the server, written into the history as they come."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.serve.chat_asking import ask
from clearseek.serve.errors import ApiError, as_api_error
from clearseek.serve.generations import Generation, Generations
from clearseek.serve.history.history import History
from clearseek.serve.history.prompts import as_chat
from clearseek.serve.history.records import Message
from clearseek.serve.history.records import State as Ending
from clearseek.serve.openai_chat_types import ChatRequest
from clearseek.serve.pieces import Piece, Pieces
from clearseek.serve.served_model import ServedModel
from clearseek.text.tool_calls import harmony

_SAVE_SECONDS = 2.0
_WRITING_SECONDS = 30.0
_ASKING_SECONDS = 3600.0  # for a model to be opened and asked, which has bounds of its own
_KEPT_SECONDS = 60.0  # for who watches to come
_TOLD = (ApiError, InputError, RunError)
_DRAWING = (
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty",
)  # fmt: skip
_ENDINGS: dict[str, Ending] = {
    "length": "truncated",
    "deadline": "truncated",
    "cancelled": "stopped",
    "error": "failed",
}


@dataclass
class Answer:
    """One on its way; `asking` ends when its model is open and has been asked.

    `num_tokens` says how far `message` is written.
    """

    asking: asyncio.Future[Pieces]
    message: Message
    history: History
    generation: Generation | None = None  # once it has been asked
    num_tokens: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)  # or not, where that came to nothing
    over: asyncio.Event = field(default_factory=asyncio.Event)
    before: dict[str, Any] = field(default_factory=dict)  # usage of what is continued
    _prompt_tokens: int = 0
    _task: asyncio.Task[None] | None = None

    def start(self, generations: Generations) -> None:
        """Write on until it ends."""
        self.before = dict(self.message.usage)
        self._task = asyncio.get_running_loop().create_task(self._write(generations))

    def stop(self) -> None:
        """End it here, also where its model is still being opened."""
        if not self.asking.cancel() and self._pieces is not None:
            self._pieces.answering.cancel()

    def answer_now(self) -> None:
        """Close its thought at the next token. InputError where there is none yet."""
        if self.generation is None:
            raise InputError("its model is still being opened; there is no thought to end yet")
        self.generation.answer_now()

    @property
    def _pieces(self) -> Pieces | None:
        """What comes of it; None: nothing yet, or ever."""
        return self.asking.result() if self._is_done and self._failure is None else None

    @property
    def _failure(self) -> BaseException | None:
        """Why there is nothing to come."""
        return self.asking.exception() if self._is_done else None

    @property
    def _is_done(self) -> bool:
        return self.asking.done() and not self.asking.cancelled()

    async def _write(self, generations: Generations) -> None:
        try:
            await asyncio.wait([self.asking])
            if self._pieces is not None:
                self._count_prompt(self._pieces)
                self.generation = generations.start(self._pieces, self.message.id)
            self.asked.set()
            if self.generation is not None:
                await self._read(self.generation)
            elif self._failure is not None and not isinstance(self._failure, _TOLD):
                raise self._failure
        finally:
            self._end()
            try:
                await asyncio.to_thread(self._save, True)
            finally:
                self.over.set()

    def _count_prompt(self, pieces: Pieces) -> None:
        begun = self.before.get("completion_tokens", 0)  # it is in the prompt, too, of what goes on with it
        self._prompt_tokens = max(pieces.prompt_tokens - begun, 0)
        self.message.usage = {**self.before, "prompt_tokens": self._prompt_tokens}

    async def _read(self, generation: Generation) -> None:
        began, saved = time.monotonic(), time.monotonic()
        first = thought_end = None
        async for piece in generation.attach():
            now = time.monotonic()
            first = first or now
            if thought_end is None and piece.text("answer").strip():
                thought_end = now
            self._take(piece, began, first, thought_end, now)
            if now - saved > _SAVE_SECONDS:
                saved = now
                await asyncio.to_thread(self._save, False)

    def _take(self, piece: Piece, began: float, first: float, thought_end: float | None, now: float) -> None:
        message, before, pieces = self.message, self.before, self.asking.result()
        message.thought += piece.text("thought")
        message.text += piece.text("answer")
        self.num_tokens = piece.num_tokens
        writing = now - first
        message.usage = {
            "prompt_tokens": self._prompt_tokens,
            "cached_tokens": min(pieces.answering.cached_tokens, self._prompt_tokens),
            "completion_tokens": piece.num_tokens + before.get("completion_tokens", 0),
            "thought_tokens": piece.num_thought_tokens + before.get("thought_tokens", 0),
            "thought_seconds": (thought_end or now) - began + before.get("thought_seconds", 0.0)
            if piece.num_thought_tokens else before.get("thought_seconds", 0.0),
            "seconds": now - began + before.get("seconds", 0.0),
            "tokens_per_second": (piece.num_tokens - 1) / writing if writing > 0 else None,
        }  # fmt: skip
        if piece.completion is not None:
            message.state = _ENDINGS.get(piece.completion.finish_reason, "done")
            message.error = piece.completion.error or ""

    def _end(self) -> None:
        if self.message.state != "writing":
            return
        if self.asking.cancelled():
            self.message.state = "stopped"
            return
        error = None if self.generation is None else self.generation.error
        if isinstance(self._failure, _TOLD):
            error = as_api_error(self._failure).written
        self.message.state, self.message.error = "failed" if error else "interrupted", error or ""

    def _save(self, index: bool) -> None:
        try:
            self.history.put(self.message, index)
        except ApiError as error:
            if error.status not in (404, 423):  # deleted or locked meanwhile: then nobody wants it written
                raise


class Answers:
    """All answers of a server that are on their way or ended not long ago, by the id of their message."""

    def __init__(self, generations: Generations) -> None:
        self._generations = generations
        self._known: dict[str, Answer] = {}

    def of(self, message: str) -> Answer | None:
        """The answer that writes a message, as long as it is on its way."""
        answer = self._known.get(message)
        return None if answer is None or answer.over.is_set() else answer

    def ended_or_of(self, message: str) -> Answer | None:
        """The answer that writes a message, or did until not long ago: who watches may come a moment late."""
        return self._known.get(message)

    def drop(self, history: History, conversation: str | None = None) -> None:
        """Stop those of one history, or of one of its conversations, and forget them."""
        for name, answer in list(self._known.items()):
            if answer.history is history and conversation in (None, answer.message.conversation):
                answer.stop()
                self._let_go(name)

    def begin(self, asking: asyncio.Future[Pieces], message: Message, history: History) -> Answer:
        """Write what comes of `asking` a model into `message`."""
        self._forget()
        message.state, message.error = "writing", ""
        answer = self._known[message.id] = Answer(asking, message, history)
        answer.start(self._generations)
        return answer

    def _let_go(self, name: str) -> None:
        generation = self._known.pop(name).generation
        if generation is not None:
            self._generations.drop(generation.id)

    def _forget(self) -> None:
        now = time.monotonic()
        for name, answer in list(self._known.items()):
            ended = None if answer.generation is None else answer.generation.ended
            if answer.over.is_set() and (ended is None or now - ended > _KEPT_SECONDS):
                self._let_go(name)


async def ask_for(model: ServedModel, path: list[Message], settings: dict[str, Any], client: str) -> Pieces:
    """Ask a model to answer the last message of a branch. InputError and `ApiError` for what can't be asked."""
    wanted = {name: value for name, value in settings.items() if value is not None and name != "system"}
    body = ChatRequest(model=model.name, messages=as_chat(path, settings.get("system") or ""), **wanted)  # type: ignore[arg-type]
    return await ask(model, body, client, fills_context=True)


async def ask_to_continue(
    model: ServedModel,
    path: list[Message],
    begun: Message,
    settings: dict[str, Any],
    client: str,
    answers_now: bool = False,
) -> Pieces:
    """Ask a model to go on where `begun` ends, in its thought (unless it `answers_now`) or in its answer."""
    thinking = (settings.get("thinking") or {}).get("type") != "disabled"
    prompt = await model.encode(as_chat(path, settings.get("system") or ""), thinking)
    prompt, is_inside = _begun(model, prompt, begun, answers_now)
    drawing: dict[str, Any] = {name: settings.get(name) for name in _DRAWING}
    budget, most_tokens = settings.get("thinking_token_budget"), settings.get("max_tokens")
    if is_inside and budget is not None:
        drawing["thinking_budget"] = max(budget - begun.usage.get("thought_tokens", 0), 0)
    if most_tokens is not None and most_tokens > model.context - len(prompt):
        most_tokens = None  # as many as there is room for
    request = model.request(prompt, most_tokens, settings.get("seed"), client=client, **drawing)
    return model.pieces(await model.submit(request), prompt)


def _begun(
    model: ServedModel, prompt: list[int], begun: Message, answers_now: bool
) -> tuple[list[int], bool]:
    """The prompt with what an answer has so far, and whether that ends inside its thought."""
    tokenizer, tags = model.tokenizer, model.reply_form.thought
    if model.reply_form.is_harmony:
        for text, is_own in harmony.begun(begun.thought, begun.text, answers_now):
            prompt = [*prompt, *(tokenizer.encode_plain(text) if is_own else tokenizer.encode(text))]
        return prompt, False
    is_inside = model.opens_thought(prompt)
    if begun.thought and not is_inside:
        prompt, is_inside = [*prompt, *tokenizer.encode(tags.start)], True
    prompt = [*prompt, *tokenizer.encode_plain(begun.thought)]
    if is_inside and (begun.text.strip() or answers_now):
        prompt, is_inside = [*prompt, *tokenizer.encode(tags.end)], False
    return [*prompt, *tokenizer.encode_plain(begun.text)], is_inside


async def events(answer: Answer, num_tokens: int) -> AsyncIterator[dict[str, Any]]:
    """What comes after the first `num_tokens` tokens; at the end the whole message."""
    await asyncio.wait_for(answer.asked.wait(), _ASKING_SECONDS)
    if answer.generation is not None:
        async for piece in answer.generation.attach(num_tokens):
            if piece.num_tokens > num_tokens:
                yield {
                    "thought": piece.text("thought"), "answer": piece.text("answer"),
                    "tokens": piece.num_tokens,
                    "prompt_tokens": answer.message.usage["prompt_tokens"],
                    "completion_tokens": piece.num_tokens + answer.before.get("completion_tokens", 0),
                    "thought_tokens": piece.num_thought_tokens + answer.before.get("thought_tokens", 0),
                }  # fmt: skip
    await asyncio.wait_for(answer.over.wait(), _WRITING_SECONDS)  # until it is written down


def check_can_answer(path: list[Message]) -> None:
    """InputError where nothing was asked."""
    if not path or path[-1].role != "user":
        raise InputError("an answer follows a user's message")
