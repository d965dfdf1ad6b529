"""Shapes of Anthropic's answers, for the OpenAPI description; tests hold every answer against them."""

from typing import Any, Literal

from pydantic import Field

from clearseek.serve.answer_types import Shape


class AnthropicErrorDetail(Shape):
    """What is wrong: by kind, and in words."""

    type: str
    message: str


class AnthropicError(Shape):
    """An error."""

    type: Literal["error"]
    error: AnthropicErrorDetail


class AnswerThinking(Shape):
    """A thought."""

    type: Literal["thinking"]
    thinking: str
    signature: str


class AnswerText(Shape):
    """A text."""

    type: Literal["text"]
    text: str


class AnswerToolUse(Shape):
    """A call."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class AnthropicOutput(Shape):
    """What tokens of an answer were."""

    thinking_tokens: int = Field(ge=0)


class AnthropicUsage(Shape):
    """Tokens; those of the prompt that the cache knew are counted apart."""

    input_tokens: int = Field(ge=0)
    cache_creation_input_tokens: Literal[0]
    cache_read_input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)
    output_tokens_details: AnthropicOutput


class AnthropicMessage(Shape):
    """An answer."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[AnswerThinking | AnswerText | AnswerToolUse]
    stop_reason: Literal[
        "end_turn", "max_tokens", "stop_sequence", "tool_use", "model_context_window_exceeded"
    ]
    stop_sequence: str | None
    usage: AnthropicUsage


class CountedTokens(Shape):
    """How long a prompt would be."""

    input_tokens: int = Field(gt=0)


ANTHROPIC_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": AnthropicError} for status in ("4XX", 422, 503)
}
