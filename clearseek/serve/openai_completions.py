"""`/v1/completions`, and DeepSeek's `/beta/completions`."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from clearseek.serve.answer_types import ERRORS, TextCompletion, streamed
from clearseek.serve.answering import Answering
from clearseek.serve.completion_answer import CompletionAnswer
from clearseek.serve.completion_asking import requests_of
from clearseek.serve.completion_types import CompletionRequest
from clearseek.serve.drawing import model_name
from clearseek.serve.late import in_time, plain_failure
from clearseek.serve.logs import at_end, note
from clearseek.serve.paths import is_deepseek
from clearseek.serve.state import state_of
from clearseek.serve.streaming import EventStream, WholeAnswer

router = APIRouter(responses=ERRORS)
_RESPONSES = streamed(TextCompletion, "text_completion")


@router.post("/v1/completions", responses=_RESPONSES)
@router.post("/completions", responses=_RESPONSES)
@router.post("/beta/completions", responses=_RESPONSES)
async def completions(body: CompletionRequest, request: Request) -> Response:
    """Go on with texts, or fill their holes."""
    begin = _begin(body, request)
    return await in_time(request, begin, plain_failure if body.stream else None)


async def _begin(body: CompletionRequest, request: Request) -> Response:
    state = state_of(request)
    model = await state.model(body.model, request)
    answerings: list[Answering] = []
    try:
        for asked in requests_of(model, body, request.state.client):
            answerings.append(await model.submit(asked))
    except BaseException:
        for answering in answerings:
            answering.cancel()
        raise
    answer = CompletionAnswer(
        model_name(body, model), body, answerings, model.tokenizer, is_deepseek(request.url.path)
    )
    note(request.scope, model=model.name, prompt_tokens=answer.usage()["prompt_tokens"])
    at_end(request.scope, lambda: note(request.scope, completion_tokens=answer.completion_tokens))
    seconds = state.settings.keep_alive_seconds
    if body.stream:
        return EventStream(answer.events(), answer.cancel, seconds)
    return WholeAnswer(answer.whole, answer.cancel, seconds)
