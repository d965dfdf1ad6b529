"""`/api/history`: whether conversations are kept, whether they are encrypted, and how all of them are deleted."""

import asyncio

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from clearseek.serve.history.history import History
from clearseek.serve.page.access import history_of, reply
from clearseek.serve.state import state_of
from clearseek.serve.wire import Wire

router = APIRouter(prefix="/api")


class Passphrase(Wire):
    """Words; none at all: no longer encrypted."""

    passphrase: str | None = Field(default=None, max_length=1000)


class Keeping(Wire):
    """The choice."""

    keeps: bool


def _told(history: History) -> dict[str, object]:
    return {
        "keeps": history.keeps,
        "can_keep": history.path is not None,
        "place": None if history.path is None else str(history.path),
        "sealed": history.is_sealed,
        "locked": history.is_locked,
    }


@router.get("/history")
def tell(request: Request) -> Response:
    """How it is."""
    return reply(_told(history_of(request)))


@router.put("/history")
def choose(body: Keeping, request: Request) -> Response:
    """Keep new conversations, or don't."""
    history_of(request).set_keeps(body.keeps)
    return tell(request)


@router.put("/history/passphrase")
def seal(body: Passphrase, request: Request) -> Response:
    """Encrypt what is kept, or no longer."""
    history_of(request).set_passphrase(body.passphrase)
    return tell(request)


@router.post("/history/unlock")
def unlock(body: Passphrase, request: Request) -> Response:
    """Open what is encrypted."""
    history_of(request).unlock(body.passphrase or "")
    return tell(request)


@router.post("/history/lock")
async def lock(request: Request) -> Response:
    """Forget the key until the passphrase is given again."""
    state_of(request).answers.drop(history_of(request))
    history_of(request).lock()
    return tell(request)


@router.delete("/history")
async def delete_all(request: Request) -> Response:
    """Delete everything."""
    state_of(request).answers.drop(history_of(request))
    await asyncio.to_thread(history_of(request).delete_all)
    return tell(request)
