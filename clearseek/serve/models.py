"""`/v1/models`: what can be asked."""

from typing import Any

from fastapi import APIRouter, Request

from clearseek.serve.served_model import ServedModel
from clearseek.serve.state import state_of

router = APIRouter()


@router.get("/models")
@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """All models."""
    loaded = state_of(request).registry.loaded()
    return {"object": "list", "data": [_card(model) for model in loaded]}


@router.get("/models/{name:path}")
@router.get("/v1/models/{name:path}")
async def one_model(name: str, request: Request) -> dict[str, Any]:
    """One model."""
    return _card(await state_of(request).registry.get(name))


def _card(model: ServedModel) -> dict[str, Any]:
    return {
        "id": model.name,
        "object": "model",
        "created": model.created,
        "owned_by": "clearseek",
        "max_model_len": model.context,
    }
