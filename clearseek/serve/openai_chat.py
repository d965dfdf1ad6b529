"""`/v1/chat/completions`, and the same at DeepSeek's own base URL and its beta."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from clearseek.serve.answer_types import ERRORS, ChatCompletion, streamed
from clearseek.serve.chat_answer import ChatAnswer
from clearseek.serve.chat_asking import ask
from clearseek.serve.chat_reply import reply
from clearseek.serve.drawing import model_name
from clearseek.serve.late import in_time, plain_failure
from clearseek.serve.openai_chat_types import ChatRequest
from clearseek.serve.paths import is_deepseek
from clearseek.serve.state import state_of

router = APIRouter(responses=ERRORS)
_RESPONSES = streamed(ChatCompletion, "chat.completion.chunk")


@router.post("/v1/chat/completions", responses=_RESPONSES)
@router.post("/chat/completions", responses=_RESPONSES)
@router.post("/beta/chat/completions", responses=_RESPONSES)
@router.post("/beta/v1/chat/completions", include_in_schema=False)
async def chat_completions(body: ChatRequest, request: Request) -> Response:
    """Answer a conversation."""
    state = state_of(request)

    async def begin() -> Response:
        model = await state.model(body.model, request)
        pieces = await ask(model, body, request.state.client, state.settings.strict)
        answer = ChatAnswer(
            model_name(body, model),
            body,
            pieces,
            is_deepseek(request.url.path),
            state.settings.reasoning_alias,
        )
        return reply(request, model.name, pieces, answer, body.stream)

    return await in_time(request, begin(), plain_failure if body.stream else None)
