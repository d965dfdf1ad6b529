"""`/api/trace`: where an answer's words stand in the training data of the run that made the model.

What is asked is searched for and forgotten: nothing of it is written anywhere.
"""

import asyncio
from pathlib import Path

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from clearseek.serve.errors import ApiError
from clearseek.serve.page.access import reply
from clearseek.serve.state import state_of
from clearseek.serve.wire import Wire
from clearseek.trace.excerpt import has_run
from clearseek.trace.tracer import MIN_WORDS

router = APIRouter(prefix="/api")
_MOST_CHARACTERS = 1 << 18


class Asked(Wire):
    """An answer, and the model that gave it."""

    model: str = Field(max_length=1000)
    text: str = Field(max_length=_MOST_CHARACTERS)
    min_tokens: int = Field(default=MIN_WORDS, ge=1, le=1000)


@router.post("/trace")
async def trace(body: Asked, request: Request) -> Response:
    """The longest spans of an answer in what its model's run trained on, rarest first."""
    state = state_of(request)
    name = state.registry.resolve(body.model)
    root = Path(state.registry.root_of(name))
    if not has_run(root):
        raise ApiError(
            404, f"the run that made {name} isn't here, so there is no training data to search", code="no_run"
        )
    tracer = await state.tracers.of(root)
    found = await asyncio.to_thread(tracer.trace, body.text, body.min_tokens)
    return reply(found.to_dict() | {"run": tracer.run_dir.name})
