"""A chat request as the engine is asked it: the prompt's tokens, the settings, what parts the answer."""

import json
from collections.abc import Mapping
from typing import Any

from clearseek.engine.constraint import Constraint, json_object, json_schema
from clearseek.serve.drawing import client_of, settings_of
from clearseek.serve.errors import ApiError, RefusedHistory
from clearseek.serve.openai_chat_types import ChatRequest, Message, ToolCall
from clearseek.serve.pieces import Pieces
from clearseek.serve.served_model import ServedModel
from clearseek.serve.structured import constraint_of
from clearseek.serve.tools import Tools
from clearseek.text.tool_calls.history import fit_calls

# DeepSeek's three efforts and the names that it takes for them
_EFFORTS = {
    "minimal": "low", "low": "low", "medium": "high", "high": "high", "xhigh": "high", "max": "max", "ultra": "max",
}  # fmt: skip
_LOW_EFFORT_TOKENS = 1024  # of thought, where the model's template knows nothing of efforts
_WITHOUT_THOUGHT = ("deepseek-chat",)  # the names of old that said so themselves
_OF_R1 = "deepseek-reasoner"  # the name of old whose service took no thoughts back


async def ask(
    model: ServedModel,
    body: ChatRequest,
    key_owner: str = "",
    strict: bool = False,
    fills_context: bool = False,
) -> Pieces:
    """Submit a conversation. InputError and `ApiError` for what is wrong with it.

    With `fills_context` more tokens than the context holds are as many as it holds, else they are a mistake.
    """
    settings = settings_of(body, body.logprobs)
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs: it needs logprobs to be true", param="top_logprobs")
    thinking, variables, budget = _thinking(model, body)
    answer = _constraint(body, strict)
    tools = Tools.of(model, body, answer)
    variables |= tools.variables
    _check_history(body, thinking, strict)
    prompt = await _encode(model, body, thinking, variables)
    most_tokens = body.max_completion_tokens or body.max_tokens
    if fills_context and most_tokens is not None and most_tokens > model.context - len(prompt):
        most_tokens = None
    if budget is not None and body.thinking_token_budget is None:  # ours: it leaves room for an answer
        budget = min(budget, (most_tokens or max(model.context - len(prompt), 0)) // 2)
    request = model.request(
        prompt,
        most_tokens,
        body.seed,
        body.n,
        client_of(body, key_owner),
        body.timeout_seconds,
        top_log_probs=body.top_logprobs or None,
        constraint=tools.constraint or answer,
        thinking_budget=budget,
        **settings,
    )
    return model.pieces(await model.submit(request), prompt, tools.schemas, tools.most_calls)


async def prompt_of(model: ServedModel, body: ChatRequest, add_generation_prompt: bool = True) -> list[int]:
    """The token ids of a conversation's prompt. InputError and `ApiError` as `ask` raises them.

    Without the generation prompt it need not be one that an answer can follow.
    """
    thinking, variables, _ = _thinking(model, body)
    if add_generation_prompt:
        _check_history(body, thinking, strict=False)
    variables |= Tools.of(model, body).variables
    return await _encode(model, body, thinking, variables, add_generation_prompt)


async def _encode(
    model: ServedModel,
    body: ChatRequest,
    thinking: bool,
    variables: dict[str, Any],
    add_generation_prompt: bool = True,
) -> list[int]:
    is_continued = bool(body.messages[-1].prefix)
    return await model.encode(
        fit_calls(_messages(body), model.tokenizer.chat.source),
        thinking,
        add_generation_prompt=add_generation_prompt and not is_continued,
        continue_final_message=is_continued,
        **variables,
    )


def _thinking(model: ServedModel, body: ChatRequest) -> tuple[bool, dict[str, Any], int | None]:
    """Whether the model is to think, what its template is told besides, and after how many tokens it has to answer."""
    variables: dict[str, Any] = dict(body.chat_template_kwargs or {})
    switches = [variables.pop(name, None) for name in ("thinking", "enable_thinking")]
    thinking = body.model not in _WITHOUT_THOUGHT
    for said in (
        None if body.reasoning_effort is None else body.reasoning_effort != "none",
        *(bool(switch) for switch in switches if switch is not None),
        None if body.thinking is None else body.thinking.type == "enabled",
    ):
        thinking = thinking if said is None else said
    budget = body.thinking_token_budget
    if body.reasoning_effort in (None, "none") or not thinking:
        return thinking, variables, budget if thinking else None
    if "reasoning_effort" in model.tokenizer.chat.names_read:
        variables.setdefault("reasoning_effort", body.reasoning_effort)
    elif budget is None and _EFFORTS[body.reasoning_effort] == "low":
        budget = _LOW_EFFORT_TOKENS
    return thinking, variables, budget


def _check_history(body: ChatRequest, thinking: bool, strict: bool) -> None:
    """`ApiError` for turns that no answer can follow."""
    for number, message in enumerate(body.messages):
        if message.prefix and (message.role != "assistant" or number < len(body.messages) - 1):
            raise _wrong(number, "prefix", "only the last message has it, and it is the assistant's")
        if message.role == "tool" and message.tool_call_id is None:
            raise _wrong(number, "tool_call_id", "a tool's message says which call it answers")
        if message.content is None and not (
            message.role == "assistant" and (message.tool_calls or message.prefix)
        ):
            raise _wrong(number, "content", "it has to be there")
        if strict and message.role == "assistant" and not message.prefix:
            _check_thought(body, number, thinking)
    if body.messages[-1].role == "assistant" and not body.messages[-1].prefix:
        raise ApiError(
            400,
            "the last message is the assistant's: set its prefix to true to have it continued, or add a user's message",
            param="messages",
        )


def _check_thought(body: ChatRequest, number: int, thinking: bool) -> None:
    """DeepSeek's rules: with tools every turn has its thought; without, R1's service was to be sent none."""
    message, place = body.messages[number], f"messages.{number}.reasoning_content"
    if body.tools or message.tool_calls:
        if thinking and not _thought(message):
            why = "The `reasoning_content` in the thinking mode must be passed back to the API."
            raise RefusedHistory(place, f"{place}: {why}")
    elif body.model == _OF_R1 and _thought(message):
        raise RefusedHistory(
            place, f"{place}: {_OF_R1} takes no thoughts of earlier turns back; leave it out"
        )


def _messages(body: ChatRequest) -> list[dict[str, Any]]:
    """The conversation as templates read it. Without tools, thoughts of earlier turns are left out: DeepSeek's rule."""
    return [
        _plain(message, keeps_thought=bool(body.tools) or bool(message.prefix)) for message in body.messages
    ]


def _plain(message: Message, keeps_thought: bool) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "role": "system" if message.role == "developer" else message.role,
        "content": message.text,
    }
    for name in ("name", "tool_call_id"):
        if (value := getattr(message, name)) is not None:
            plain[name] = value
    if keeps_thought and _thought(message):
        plain["reasoning_content"] = _thought(message)
    if message.tool_calls:
        plain["tool_calls"] = [_call(call) for call in message.tool_calls]
    return plain


def _call(call: ToolCall) -> dict[str, Any]:
    """A call of the history; templates read its arguments as a mapping."""
    try:
        arguments: Any = json.loads(call.function.arguments or "{}")
    except ValueError:
        arguments = call.function.arguments  # a model's own mistake, shown to it as it was
    return {
        "id": call.id,
        "type": call.type,
        "function": {"name": call.function.name, "arguments": arguments},
    }


def _thought(message: Message) -> str | None:
    return message.reasoning_content or message.reasoning


def _constraint(body: ChatRequest, strict: bool) -> Constraint | None:
    wanted = body.response_format
    if body.structured_outputs is not None:
        if wanted is not None and wanted.type != "text":
            why = "response_format says already what the answer looks like; leave out one of them"
            raise ApiError(400, f"structured_outputs: {why}", param="structured_outputs")
        return constraint_of(body.structured_outputs)
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        if strict and not any("json" in message.text.lower() for message in body.messages):
            raise RefusedHistory(
                "messages", "response_format: the conversation has to ask for JSON by that word"
            )
        return json_object()
    if wanted.json_schema is None:
        raise ApiError(400, "response_format.json_schema: it has to be there", param="response_format")
    schema: Mapping[str, Any] | bool = wanted.json_schema.schema_
    return json_schema("true" if schema is True else "false" if schema is False else schema)


def _wrong(number: int, field: str, why: str) -> ApiError:
    return ApiError(400, f"messages.{number}.{field}: {why}", param=f"messages.{number}.{field}")
