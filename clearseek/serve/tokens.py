"""`/tokenize` and `/detokenize`, in vLLM's shape."""

import asyncio
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field, JsonValue

from clearseek.serve.answer_types import ERRORS, Text, Tokens
from clearseek.serve.chat_asking import prompt_of
from clearseek.serve.errors import ApiError
from clearseek.serve.openai_chat_types import ChatRequest, Message, Tool
from clearseek.serve.state import state_of
from clearseek.serve.wire import Wire

router = APIRouter(responses=ERRORS)


class TokenizeRequest(Wire):
    """A text, or a conversation."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = Field(default=None, min_length=1)
    tools: list[Tool] | None = Field(default=None, max_length=128)
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
    model = await state_of(request).model(body.model, request)
    if (body.prompt is None) == (body.messages is None):
        raise ApiError(400, "give a prompt or messages, one of them")
    if body.prompt is not None and (body.tools or body.chat_template_kwargs):
        raise ApiError(400, "tools and chat_template_kwargs: only a conversation has them", param="tools")
    if body.messages is not None:
        chat = ChatRequest(
            model=body.model, messages=body.messages, tools=body.tools,
            chat_template_kwargs=body.chat_template_kwargs,
        )  # fmt: skip
        tokens = await prompt_of(model, chat, body.add_generation_prompt)
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
    model = await state_of(request).model(body.model, request)
    size = model.tokenizer.vocab_size
    if body.tokens and not 0 <= min(body.tokens) <= max(body.tokens) < size:
        raise ApiError(400, f"tokens: they are from 0 to {size - 1}", param="tokens")
    return {"prompt": await asyncio.to_thread(model.tokenizer.decode, body.tokens)}
