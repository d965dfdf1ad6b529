"""OpenAI's `/v1/responses`, also at DeepSeek's base URL; stateless, as DeepSeek's own is."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from clearseek.serve.answer_types import ERRORS, streamed
from clearseek.serve.chat_asking import ask
from clearseek.serve.chat_reply import reply
from clearseek.serve.late import in_time
from clearseek.serve.responses_answer import ResponsesAnswer, error_event
from clearseek.serve.responses_asking import as_chat
from clearseek.serve.responses_shapes import ResponseObject
from clearseek.serve.responses_types import ResponsesRequest
from clearseek.serve.state import state_of

router = APIRouter(responses=ERRORS)
_RESPONSES = streamed(ResponseObject, "response.* and what it grows by")


@router.post("/v1/responses", responses=_RESPONSES)
@router.post("/responses", responses=_RESPONSES)
async def responses(body: ResponsesRequest, request: Request) -> Response:
    """Answer a conversation."""
    state, chat = state_of(request), as_chat(body)

    async def begin() -> Response:
        model = await state.model(body.model, request)
        pieces = await ask(model, chat, request.state.client, state.settings.strict)
        answer = ResponsesAnswer(body.model or model.name, body, pieces)
        return reply(request, model.name, pieces, answer, body.stream)

    return await in_time(request, begin(), error_event if body.stream else None)
