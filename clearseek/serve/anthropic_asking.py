"""A request of Anthropic's as the chat request that asks the same."""

import json
from typing import Any

from clearseek.serve.anthropic_types import (
    Counted,
    InputMessage,
    MessagesRequest,
    TextBlock,
    ThinkingBlock,
    ToolChoice,
    ToolResultBlock,
    ToolUseBlock,
)
from clearseek.serve.errors import ApiError
from clearseek.serve.openai_chat_types import ChatRequest


def as_chat(body: Counted) -> ChatRequest:
    """The same in OpenAI's shape. `ApiError` for what can't be meant."""
    messages: list[dict[str, Any]] = (
        [{"role": "system", "content": text}] if (text := _text(body.system or "")) else []
    )
    for message in body.messages:
        messages += _turns(message)
    asked: dict[str, Any] = {"model": body.model, "messages": messages, **_tools(body), **_thinking(body)}
    if isinstance(body, MessagesRequest):
        asked |= {
            "max_tokens": body.max_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            "stop": body.stop_sequences,
            "user": body.metadata.user_id if body.metadata else None,
            "response_format": _format(body),
        }
    if messages[-1]["role"] == "assistant":
        messages[-1]["prefix"] = True  # Anthropic has a last turn of the assistant's continued
    return ChatRequest.model_validate({name: value for name, value in asked.items() if value is not None})


def _format(body: Counted) -> dict[str, Any] | None:
    wanted = body.output_config.format if body.output_config else None
    return None if wanted is None else {"type": "json_schema", "json_schema": {"schema": wanted.schema_}}


def _text(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content)


def _turns(message: InputMessage) -> list[dict[str, Any]]:
    """A turn of Anthropic's; the results of tools are turns of their own in OpenAI's shape."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    results: list[dict[str, Any]] = []
    turn: dict[str, Any] = {"role": message.role, "content": ""}
    calls: list[dict[str, Any]] = []
    for block in message.content:
        match block:
            case TextBlock():
                turn["content"] += block.text
            case ThinkingBlock():
                turn["reasoning_content"] = turn.get("reasoning_content", "") + block.thinking
            case ToolUseBlock():
                function = {"name": block.name, "arguments": json.dumps(block.input, ensure_ascii=False)}
                calls.append({"id": block.id, "type": "function", "function": function})
            case ToolResultBlock():
                text = f"Error: {_text(block.content)}" if block.is_error else _text(block.content)
                results.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": text})
    if calls:
        turn["tool_calls"] = calls
    is_said = turn["content"] or calls or not results
    return [*results, turn] if is_said else results


def _tools(body: Counted) -> dict[str, Any]:
    if not body.tools:
        if body.tool_choice is not None and body.tool_choice.type in ("any", "tool"):
            raise ApiError(400, "tool_choice: there are no tools to choose from", param="tool_choice")
        return {}
    tools = [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.input_schema,
                "strict": tool.strict,
            },
        }
        for tool in body.tools
    ]
    choice = body.tool_choice or ToolChoice(type="auto")
    if choice.type == "tool" and choice.name is None:
        raise ApiError(400, "tool_choice.name: it says which tool", param="tool_choice.name")
    named = {"type": "function", "function": {"name": choice.name}}
    parallel = False if choice.disable_parallel_tool_use else None
    wanted = named if choice.type == "tool" else {"any": "required"}.get(choice.type, choice.type)
    return {"tools": tools, "tool_choice": wanted, "parallel_tool_calls": parallel}


def _thinking(body: Counted) -> dict[str, Any]:
    """Anthropic's models think where they are asked to; an effort asks, too."""
    effort = body.output_config.effort if body.output_config else None
    wanted = body.thinking.type != "disabled" if body.thinking else effort is not None
    budget = body.thinking.budget_tokens if body.thinking and wanted else None
    switch = {"type": "enabled" if wanted else "disabled"}
    return {
        "thinking": switch,
        "thinking_token_budget": budget,
        "reasoning_effort": effort if wanted else None,
    }
