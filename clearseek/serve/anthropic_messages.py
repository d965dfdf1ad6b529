"""Anthropic's `/v1/messages` and `/v1/messages/count_tokens`, also under DeepSeek's `/anthropic`."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from clearseek.serve.answer_types import streamed
from clearseek.serve.anthropic_answer import AnthropicAnswer, failed_event
from clearseek.serve.anthropic_asking import as_chat
from clearseek.serve.anthropic_shapes import ANTHROPIC_ERRORS, AnthropicMessage, CountedTokens
from clearseek.serve.anthropic_types import Counted, MessagesRequest
from clearseek.serve.chat_asking import ask, prompt_of
from clearseek.serve.chat_reply import reply
from clearseek.serve.late import in_time
from clearseek.serve.state import state_of

router = APIRouter(responses=ANTHROPIC_ERRORS)
_MESSAGES = streamed(AnthropicMessage, "message_start and what follows it")
_COUNTED: dict[int | str, dict[str, Any]] = {200: {"model": CountedTokens}}


@router.post("/v1/messages", responses=_MESSAGES)
@router.post("/anthropic/v1/messages", responses=_MESSAGES)
async def messages(body: MessagesRequest, request: Request) -> Response:
    """Answer a conversation."""
    state, chat = state_of(request), as_chat(body)

    async def begin() -> Response:
        model = await state.model(body.model, request)
        # its clients have to name a bound, and name large ones
        pieces = await ask(model, chat, request.state.client, state.settings.strict, fills_context=True)
        tells_thoughts = body.thinking is None or body.thinking.display != "omitted"
        answer = AnthropicAnswer(body.model, pieces, body.max_tokens, tells_thoughts)
        return reply(request, model.name, pieces, answer, body.stream)

    return await in_time(request, begin(), failed_event if body.stream else None)


@router.post("/v1/messages/count_tokens", responses=_COUNTED)
@router.post("/anthropic/v1/messages/count_tokens", responses=_COUNTED)
async def count_tokens(body: Counted, request: Request) -> dict[str, Any]:
    """How many tokens the prompt would have."""
    model = await state_of(request).model(body.model, request)
    return {"input_tokens": len(await prompt_of(model, as_chat(body)))}
