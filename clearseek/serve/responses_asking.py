"""A request of the Responses API as the chat request that asks the same."""

from typing import Any

from clearseek.serve.errors import ApiError
from clearseek.serve.openai_chat_types import ChatRequest
from clearseek.serve.responses_types import (
    CallItem,
    Item,
    MessageItem,
    NamedFunction,
    ReasoningItem,
    ResponsesRequest,
    ResultItem,
    SchemaFormat,
)

_STORED = ("previous_response_id", "conversation", "prompt", "background", "store")


def as_chat(body: ResponsesRequest) -> ChatRequest:
    """The same in the shape of chats. `ApiError` for what can't be meant, or needs a store."""
    _check_stateless(body)
    head = [{"role": "system", "content": body.instructions}] if body.instructions else []
    messages = [*head, *_turns(body.input)]
    if messages[-1]["role"] == "assistant":
        raise ApiError(400, "input: the last item is the model's own; add a message to answer", param="input")
    asked: dict[str, Any] = {
        "model": body.model,
        "messages": messages,
        "max_completion_tokens": body.max_output_tokens,
        "temperature": body.temperature,
        "top_p": body.top_p,
        "logprobs": body.wants_log_probs,
        "top_logprobs": body.top_logprobs if body.wants_log_probs else None,
        "reasoning_effort": body.reasoning.effort if body.reasoning else None,
        "user": body.user,
        "parallel_tool_calls": body.parallel_tool_calls,
        "response_format": _format(body),
        **_tools(body),
    }
    return ChatRequest.model_validate({name: value for name, value in asked.items() if value is not None})


def _check_stateless(body: ResponsesRequest) -> None:
    for name in _STORED:
        if getattr(body, name) not in (None, False):
            raise ApiError(
                400,
                f"{name}: this server keeps no responses; send the whole conversation as input and leave {name} out",
                param=name,
            )


def _turns(items: list[Item]) -> list[dict[str, Any]]:
    """Items as turns: a thought, a text and calls that follow one another are one turn of the assistant's."""
    turns: list[dict[str, Any]] = []
    for item in items:
        match item:
            case MessageItem(role="assistant"):
                _own_turn(turns, new="content")["content"] += item.text
            case MessageItem():
                turns.append({"role": item.role, "content": item.text})
            case ReasoningItem():
                _own_turn(turns, new="reasoning_content")["reasoning_content"] = item.text
            case CallItem():
                function = {"name": item.name, "arguments": item.arguments}
                call = {"id": item.call_id, "type": "function", "function": function}
                _own_turn(turns).setdefault("tool_calls", []).append(call)
            case ResultItem():
                turns.append({"role": "tool", "tool_call_id": item.call_id, "content": item.text})
    return turns


def _own_turn(turns: list[dict[str, Any]], new: str = "") -> dict[str, Any]:
    """The assistant's turn that an item belongs to; a thought begins a new one, and so does a second text."""
    last = turns[-1] if turns and turns[-1]["role"] == "assistant" else None
    is_second = last is not None and not last.get("tool_calls") and bool(last["content"])
    if last is None or new == "reasoning_content" or (new == "content" and is_second):
        last = {"role": "assistant", "content": ""}
        turns.append(last)
    return last


def _format(body: ResponsesRequest) -> dict[str, Any]:
    wanted = body.text.format
    if not isinstance(wanted, SchemaFormat):
        return {"type": wanted.type}
    schema = {"name": wanted.name, "description": wanted.description, "schema": wanted.schema_}
    return {"type": "json_schema", "json_schema": schema | {"strict": wanted.strict}}


def _tools(body: ResponsesRequest) -> dict[str, Any]:
    functions = [tool.model_dump(exclude={"type"}, exclude_none=True) for tool in body.tools or ()]
    choice = body.tool_choice
    if isinstance(choice, NamedFunction):
        named = {"type": "function", "function": {"name": choice.name}}
        return {"tools": _wrapped(functions), "tool_choice": named}
    return {"tools": _wrapped(functions), "tool_choice": choice}


def _wrapped(functions: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    return [{"type": "function", "function": function} for function in functions] or None
