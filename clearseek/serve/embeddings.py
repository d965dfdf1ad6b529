"""`/v1/embeddings`: the mean of a text's last hidden states, at unit length.

None of the models served here has a head that was trained to embed. The mean says what a text is about roughly, more
so the better the model; who needs more takes a model that is made for it.
"""

import asyncio
import base64
from typing import Any, Literal

import numpy as np
from fastapi import APIRouter, Request
from pydantic import Field

from clearseek.serve.answer_types import ERRORS, EmbeddingList
from clearseek.serve.engine_service import EngineService
from clearseek.serve.errors import ApiError
from clearseek.serve.served_model import ServedModel
from clearseek.serve.state import state_of
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
async def embeddings(body: EmbeddingRequest, request: Request) -> dict[str, Any]:
    """A vector for each text."""
    model = await state_of(request).model(body.model)
    if not isinstance(model.service, EngineService):
        raise ApiError(
            400, f"model: {model.name} is answered elsewhere, and its states are not here", param="model"
        )
    texts = _texts(body.input)
    prompts = [_tokens(model, number, text) for number, text in enumerate(texts)]
    size = model.service.engine.model.config.hidden_size
    if body.dimensions not in (None, size):
        raise ApiError(
            400, f"dimensions: this model's vectors have {size}, and can't be cut", param="dimensions"
        )
    vectors = [await asyncio.to_thread(model.service.mean_state, prompt) for prompt in prompts]
    data = [
        {"object": "embedding", "index": index, "embedding": _written(vector, body.encoding_format)}
        for index, vector in enumerate(vectors)
    ]
    count = sum(map(len, prompts))
    usage = {"prompt_tokens": count, "total_tokens": count}
    return {"object": "list", "data": data, "model": body.model or model.name, "usage": usage}


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
