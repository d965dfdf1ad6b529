"""`/v1/models`: what can be asked."""

import time
from typing import Any

from fastapi import APIRouter, Request

from clearseek.serve.answer_types import ERRORS, ModelCard, ModelList
from clearseek.serve.registry import Registry
from clearseek.serve.state import state_of

router = APIRouter(responses=ERRORS)
STARTED = int(time.time())


@router.get("/models", responses={200: {"model": ModelList}})
@router.get("/v1/models", responses={200: {"model": ModelList}})
async def list_models(request: Request) -> dict[str, Any]:
    """All models, also those that are not in memory."""
    registry = state_of(request).registry
    return {"object": "list", "data": [_card(registry, name) for name in registry.names]}


@router.get("/models/{name:path}", responses={200: {"model": ModelCard}})
@router.get("/v1/models/{name:path}", responses={200: {"model": ModelCard}})
async def one_model(name: str, request: Request) -> dict[str, Any]:
    """One model; it is not read into memory by this."""
    registry = state_of(request).registry
    return {**_card(registry, registry.resolve(name)), "id": name}


def _card(registry: Registry, name: str) -> dict[str, Any]:
    model = registry.loaded_by_name().get(name)
    card = {"id": name, "object": "model", "created": STARTED, "owned_by": "clearseek"}
    return card if model is None else {**card, "created": model.created, "max_model_len": model.context}
