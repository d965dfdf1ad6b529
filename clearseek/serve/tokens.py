"""`/tokenize` and `/detokenize`, in vLLM's shape."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, JsonValue

from clearseek.serve.answer_types import ERRORS, Text, Tokens
from clearseek.serve.errors import ApiError
from clearseek.serve.openai_chat_types import Message
from clearseek.serve.state import state_of
from clearseek.serve.wire import Wire

router = APIRouter(responses=ERRORS)


class TokenizeRequest(Wire):
    """A text, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, JsonValue] | None = None
    return_token_strs: bool | None = None


class DetokenizeRequest(Wire):
    """Tokens."""

    model: str | None = None
    tokens: list[int] = Field(max_length=4_000_000)


@router.post("/tokenize", responses={200: {"model": Tokens}})
@router.post("/v1/tokenize", include_in_schema=False)
async def tokenize(body: TokenizeRequest, request: Request) -> dict[str, Any]:
    """A text's or a conversation's tokens."""
    model = await state_of(request).model(body.model)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "give a prompt or messages, one of them")
    if body.messages is not None:
        messages = [{"role": one.role, "content": one.text} for one in body.messages]
        variables = dict(body.chat_template_kwargs or {})
        thinking = bool(variables.pop("thinking", variables.pop("enable_thinking", True)))
        tokens = await model.encode(
            messages, thinking, add_generation_prompt=body.add_generation_prompt, **variables
        )
    else:
        begin = model.tokenizer.bos_id if body.add_special_tokens else None
        tokens = await asyncio.to_thread(model.tokenizer.encode_plain, body.prompt or "")
        tokens = tokens if begin is None else [begin, *tokens]
    names = [model.tokenizer.token_name(token) for token in tokens] if body.return_token_strs else None
    return {"count": len(tokens), "max_model_len": model.context, "tokens": tokens, "token_strs": names}


@router.post("/detokenize", responses={200: {"model": Text}})
@router.post("/v1/detokenize", include_in_schema=False)
async def detokenize(body: DetokenizeRequest, request: Request) -> dict[str, Any]:
    """The text of tokens."""
    model = await state_of(request).model(body.model)
    size = model.tokenizer.vocab_size
    if body.tokens and not 0 <= min(body.tokens) <= max(body.tokens) < size:
        raise ApiError(400, f"tokens: they are from 0 to {size - 1}", param="tokens")
    return {"prompt": await asyncio.to_thread(model.tokenizer.decode, body.tokens)}
