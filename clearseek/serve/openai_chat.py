"""`/v1/chat/completions`: OpenAI's shape with DeepSeek's fields."""

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from clearseek import __version__
from clearseek.serve.errors import ApiError
from clearseek.serve.logs import note
from clearseek.serve.openai_chat_types import ChatRequest
from clearseek.serve.pieces import Piece, Pieces
from clearseek.serve.served_model import ServedModel
from clearseek.serve.state import state_of
from clearseek.serve.streaming import DONE, EventStream, WholeAnswer, event

router = APIRouter()
FINGERPRINT = f"clearseek-{__version__}"


@router.post("/chat/completions")
@router.post("/v1/chat/completions")
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation."""
    state = state_of(request)
    model = await state.model(body.model)
    pieces = await ask(model, body)
    answer = _Answer(model, body, pieces)
    note(request.scope, model=model.name, prompt_tokens=pieces.prompt_tokens)
    pieces.on_end = lambda: note(request.scope, completion_tokens=pieces.completion_tokens)
    seconds = state.settings.keep_alive_seconds
    if body.stream:
        return EventStream(answer.events(), pieces.answering.cancel, seconds)
    return WholeAnswer(answer.whole, pieces.answering.cancel, seconds)


async def ask(model: ServedModel, body: ChatRequest) -> Pieces:
    """Submit a conversation. InputError and `ApiError` for what is wrong with it."""
    thinking = body.thinking is None or body.thinking.type == "enabled"
    messages = [_plain(message.model_dump(exclude_none=True), message.text) for message in body.messages]
    prompt = await model.encode(messages, thinking)
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    request = model.request(
        prompt,
        body.max_completion_tokens or body.max_tokens,
        body.seed,
        body.n,
        temperature=body.temperature,
        top_p=body.top_p,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        stop=stop or None,
        logit_bias=_bias(body.logit_bias),
    )
    answering = await model.submit(request)
    return Pieces(answering, model.tokenizer, model.opens_thought(prompt), len(prompt))


def _bias(asked: dict[str, float] | None) -> dict[int, float] | None:
    if asked is None:
        return None
    try:
        return {int(token): value for token, value in asked.items()}
    except ValueError:
        raise ApiError(400, "logit_bias: its keys have to be token ids", param="logit_bias") from None


def _plain(message: dict[str, Any], text: str) -> dict[str, Any]:
    role = "system" if message["role"] == "developer" else message["role"]
    return {**message, "role": role, "content": text}


class _Answer:
    """The JSON of one answer, whole or in chunks."""

    def __init__(self, model: ServedModel, body: ChatRequest, pieces: Pieces) -> None:
        self.model, self.body, self.pieces = model, body, pieces
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model.name,
            "system_fingerprint": FINGERPRINT,
        }

    async def events(self) -> AsyncIterator[bytes]:
        """Chunks, the usage with the last of them or in one of its own, `[DONE]`."""
        for sample in range(self.body.n):
            yield self._chunk(sample, {"role": "assistant", "content": ""})
        async for piece in self.pieces:
            if delta := _delta(piece):
                yield self._chunk(piece.sample, delta)
            if piece.completion is not None:
                yield self._chunk(piece.sample, {}, _finish_reason(piece))
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield event(
                {**self._head, "object": "chat.completion.chunk", "choices": [], "usage": usage(self.pieces)}
            )
        yield DONE

    async def whole(self) -> dict[str, Any]:
        """The answer as one object."""
        messages: list[dict[str, Any]] = [{"role": "assistant", "content": ""} for _ in range(self.body.n)]
        reasons: list[str | None] = [None] * self.body.n
        async for piece in self.pieces:
            message = messages[piece.sample]
            for name, text in _delta(piece).items():
                message[name] = message.get(name, "") + text
            if piece.completion is not None:
                reasons[piece.sample] = _finish_reason(piece)
        choices = [
            {"index": index, "message": message, "finish_reason": reason, "logprobs": None}
            for index, (message, reason) in enumerate(zip(messages, reasons, strict=True))
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage(self.pieces)}

    def _chunk(self, sample: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": sample, "delta": delta, "finish_reason": reason, "logprobs": None}
        return event({**self._head, "object": "chat.completion.chunk", "choices": [choice]})


def _delta(piece: Piece) -> dict[str, str]:
    texts = {"reasoning_content": piece.text("thought"), "content": piece.text("answer")}
    return {name: text for name, text in texts.items() if text}


def _finish_reason(piece: Piece) -> str:
    assert piece.completion is not None
    if piece.completion.error is not None:
        raise ApiError(500, piece.completion.error, "server_error")
    return {"deadline": "length", "cancelled": "stop"}.get(
        piece.completion.finish_reason, piece.completion.finish_reason
    )


def usage(pieces: Pieces) -> dict[str, Any]:
    """Tokens of the prompt and of the answer, as OpenAI and DeepSeek count them."""
    prompt, written = pieces.prompt_tokens, pieces.completion_tokens
    hit = pieces.answering.cached_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": written,
        "total_tokens": prompt + written,
        "prompt_tokens_details": {"cached_tokens": hit},
        "completion_tokens_details": {"reasoning_tokens": pieces.thought_tokens},
        "prompt_cache_hit_tokens": hit,
        "prompt_cache_miss_tokens": prompt - hit,
    }
