"""`/v1/embeddings`: the mean of a text's last hidden states, at unit length.

None of the models served here has a head that was trained to embed. The mean says what a text is about roughly, more
so the better the model; who needs more takes a model that is made for it.
"""

import asyncio
import base64
from threading import Event
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from clearseek.serve.answer_types import ERRORS, EmbeddingList
from clearseek.serve.engine_service import EngineService
from clearseek.serve.errors import ApiError
from clearseek.serve.late import in_time
from clearseek.serve.logs import note
from clearseek.serve.served_model import ServedModel
from clearseek.serve.state import state_of
from clearseek.serve.streaming import WholeAnswer
from clearseek.serve.wire import Wire

router = APIRouter(responses=ERRORS)
_MOST_TEXTS = 2048


class EmbeddingRequest(Wire):
    """Texts, or tokens."""

    model: str | None = None
    input: str | list[str] | list[int] | list[list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)
    user: str | None = None


@router.post("/v1/embeddings", responses={200: {"model": EmbeddingList}})
@router.post("/embeddings", responses={200: {"model": EmbeddingList}})
async def embeddings(body: EmbeddingRequest, request: Request) -> Response:
    """A vector for each text."""
    return await in_time(request, _begin(body, request), None)


async def _begin(body: EmbeddingRequest, request: Request) -> Response:
    state = state_of(request)
    model = await state.model(body.model, request)
    service = model.service
    if not isinstance(service, EngineService):
        raise ApiError(
            400, f"model: {model.name} is answered elsewhere, and its states are not here", param="model"
        )
    prompts = await asyncio.to_thread(_prompts, model, body.input)
    size = service.hidden_size
    if body.dimensions not in (None, size):
        raise ApiError(
            400, f"dimensions: this model's vectors have {size}, and can't be cut", param="dimensions"
        )
    note(request.scope, model=model.name, prompt_tokens=sum(map(len, prompts)))
    left = Event()

    async def produce() -> dict[str, Any]:
        return _listed(await service.mean_states(prompts, left.is_set), prompts, body, model.name)

    return WholeAnswer(produce, left.set, state.settings.keep_alive_seconds)


def _listed(
    vectors: list[np.ndarray], prompts: list[list[int]], body: EmbeddingRequest, name: str
) -> dict[str, Any]:
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    count = sum(map(len, prompts))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": body.model or name, "usage": usage}


def _prompts(model: ServedModel, given: Any) -> list[list[int]]:
    return [_tokens(model, number, text) for number, text in enumerate(_texts(given))]


def _texts(given: Any) -> list[str | list[int]]:
    texts = [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else list(given)
    if not 0 < len(texts) <= _MOST_TEXTS:
        raise ApiError(400, f"input: {len(texts)} texts; it may have 1 to {_MOST_TEXTS}", param="input")
    return texts


def _tokens(model: ServedModel, number: int, text: str | list[int]) -> list[int]:
    tokens = model.tokenizer.encode_plain(text) if isinstance(text, str) else text
    if not 0 < len(tokens) <= model.context:
        why = f"it has {len(tokens)} tokens; this model takes 1 to {model.context}"
        raise ApiError(400, f"input.{number}: {why}", param="input")
    if not 0 <= min(tokens) <= max(tokens) < model.tokenizer.vocab_size:
        raise ApiError(
            400, f"input.{number}: tokens are from 0 to {model.tokenizer.vocab_size - 1}", param="input"
        )
    return tokens


def _written(vector: np.ndarray, form: str) -> str | list[float]:
    if form == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode()
    numbers: list[float] = vector.tolist()
    return numbers
