"""Anthropic's `/v1/messages` and `/v1/messages/count_tokens`, also under DeepSeek's `/anthropic`."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from clearseek.serve.anthropic_answer import AnthropicAnswer
from clearseek.serve.anthropic_asking import as_chat
from clearseek.serve.anthropic_types import Counted, MessagesRequest
from clearseek.serve.chat_asking import ask, prompt_of
from clearseek.serve.chat_reply import reply
from clearseek.serve.state import state_of

router = APIRouter()


@router.post("/v1/messages")
@router.post("/anthropic/v1/messages")
async def messages(body: MessagesRequest, request: Request) -> Response:
    """Answer a conversation."""
    state = state_of(request)
    model = await state.model(body.model)
    pieces = await ask(model, as_chat(body), request.state.client, state.settings.strict)
    answer = AnthropicAnswer(body.model, pieces)
    return reply(request, model.name, pieces, answer, bool(body.stream))


@router.post("/v1/messages/count_tokens")
@router.post("/anthropic/v1/messages/count_tokens")
async def count_tokens(body: Counted, request: Request) -> dict[str, Any]:
    """How many tokens the prompt would have."""
    model = await state_of(request).model(body.model)
    return {"input_tokens": len(await prompt_of(model, as_chat(body)))}
