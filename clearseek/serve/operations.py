"""Whether the server lives, and whether it takes requests."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import PlainTextResponse

from clearseek.serve.answer_types import ERRORS, Health, Ready
from clearseek.serve.errors import Ending
from clearseek.serve.metrics import metrics_text
from clearseek.serve.state import state_of

router = APIRouter(responses=ERRORS)


@router.get("/health", responses={200: {"model": Health}})
async def health(request: Request) -> dict[str, Any]:
    """200 as long as the server answers, 503 while it ends."""
    if state_of(request).is_ending:
        raise Ending
    return {"status": "ok"}


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> PlainTextResponse:
    """What was counted, for Prometheus."""
    state = state_of(request)
    text = metrics_text(state.registry.loaded(), f"{state.settings.metrics_prefix}:")
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/ready", responses={200: {"model": Ready}})
async def ready(request: Request) -> dict[str, Any]:
    """200 as long as new requests are taken, 503 while the server ends."""
    if state_of(request).is_ending:
        raise Ending
    return {"status": "ready", "models": state_of(request).registry.names}
