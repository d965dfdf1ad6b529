"""Whether the server lives, and whether it takes requests."""

from typing import Any

from fastapi import APIRouter, Request

from clearseek.serve.errors import Ending
from clearseek.serve.state import state_of

router = APIRouter()


@router.get("/health")
async def health() -> dict[str, Any]:
    """200 as long as the process answers."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(request: Request) -> dict[str, Any]:
    """200 as long as new requests are taken, 503 while the server ends."""
    if state_of(request).is_ending:
        raise Ending
    return {"status": "ready", "models": state_of(request).registry.names}
