"""`/api/…/answers`: ask a model, watch the answer from anywhere in it, stop it, have it answer now."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from clearseek.config.errors import InputError
from clearseek.serve.errors import ApiError
from clearseek.serve.history.answers import Answer, ask_for, ask_to_continue, check_can_answer, events
from clearseek.serve.history.records import Message
from clearseek.serve.openai_chat_types import Effort, Thinking
from clearseek.serve.page.access import history_of, reply, told_message
from clearseek.serve.pieces import Pieces
from clearseek.serve.state import state_of
from clearseek.serve.streaming import EventStream, event
from clearseek.serve.wire import Wire
from clearseek.trace.excerpt import has_run

router = APIRouter(prefix="/api")


class Settings(Wire):
    """How to answer; what is not said is the model's own."""

    system: str | None = None
    thinking: Thinking | None = None
    reasoning_effort: Effort | None = None
    thinking_token_budget: int | None = Field(default=None, ge=0, le=2**31)
    max_tokens: int | None = Field(default=None, ge=1, le=2**31)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)


class Asked(Wire):
    """Answer the message `parent`, or go on with the answer `message`. Answers of one `pair` are compared.

    With `answers_now` an answer that ended in its thought goes on behind it.
    """

    parent: str | None = None
    message: str | None = None
    model: str | None = Field(default=None, max_length=1000)
    answers_now: bool = False
    settings: Settings = Settings()
    pair: str = Field(default="", max_length=100)


@router.post("/conversations/{id}/answers")
async def begin(id: str, body: Asked, request: Request) -> Response:
    """Begin an answer; it is written whether somebody watches or not."""
    state, history = state_of(request), history_of(request)
    name, client = state.registry.resolve(body.model), request.state.client
    settings = body.settings.model_dump(exclude_none=True)
    if body.message is not None:
        message = history.message(id, body.message)
        if message.role != "assistant" or state.answers.of(message.id) is not None:
            raise InputError("only an answer that has ended can go on")
        path = history.branch(id, message.parent)
    else:
        path = history.branch(id, body.parent)
        check_can_answer(path)
        message = Message(id, body.parent, "assistant", "", model=name, pair=body.pair)

    async def ask() -> Pieces:
        async with state.using(name) as model:
            if body.message is None:
                return await ask_for(model, path, settings, client)
            return await ask_to_continue(model, path, message, settings, client, body.answers_now)

    asking = asyncio.ensure_future(ask())
    if state.registry.is_at_hand(name):
        await asking  # so that what can't be asked leaves no answer behind
    answer = state.answers.begin(asking, message, history)
    history.put(message, index=False)
    one = history.get(id)
    one.leaf = message.id
    history.change(one)
    return reply(told_message(request, answer.message), 201)


@router.get("/answers/{message}/events")
async def watch(message: str, request: Request, after: int = 0) -> Response:
    """What comes after the first `after` tokens; the last event has the whole message."""
    answer = _answer(request, message)

    async def written() -> AsyncIterator[bytes]:
        async for told in events(answer, after):
            yield event(told)
        yield event({"end": told_message(request, answer.message)})

    return EventStream(written(), lambda: None, state_of(request).settings.keep_alive_seconds)


@router.post("/answers/{message}/{act}")
async def act(message: str, act: Literal["stop", "answer-now"], request: Request) -> Response:
    """End an answer here, or its thought."""
    answer = _answer(request, message)
    if act == "stop":
        answer.stop()
    else:
        answer.answer_now()
    return reply({"done": act})


def _answer(request: Request, message: str) -> Answer:
    answer = state_of(request).answers.ended_or_of(message)
    if answer is None or answer.history is not history_of(request):
        raise ApiError(404, "that answer is not on its way", code="answer_not_found")
    return answer


@router.get("/models")
async def models(request: Request) -> Response:
    """What can be asked, the default first."""
    registry = state_of(request).registry
    loaded = {model.name: model for model in registry.loaded()}
    told: list[dict[str, Any]] = [
        {
            "name": name,
            "context": loaded[name].context if name in loaded else None,
            "defaults": _numbers(loaded[name].defaults) if name in loaded else {},
            "traced": has_run(Path(registry.root_of(name))),
        }
        for name in registry.names
    ]
    return reply(told)


def _numbers(defaults: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in defaults.items() if isinstance(value, int | float)}
