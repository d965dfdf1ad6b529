"""Shapes of the Responses API's answers, for the OpenAPI description; tests hold every answer against them."""

from typing import Any, Literal

from pydantic import Field

from clearseek.serve.answer_types import LogProbRecord, Shape
from clearseek.serve.openai_chat_types import Effort
from clearseek.serve.responses_types import NamedFunction, PlainFormat, SchemaFormat

Ended = Literal["completed", "incomplete"]


class ThoughtPart(Shape):
    """The thought itself."""

    type: Literal["reasoning_text"]
    text: str


class ThoughtItem(Shape):
    """A thought."""

    type: Literal["reasoning"]
    id: str
    status: Ended
    summary: list[ThoughtPart] = Field(max_length=0)
    content: list[ThoughtPart] = Field(min_length=1, max_length=1)


class OutputText(Shape):
    """A text."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] = Field(max_length=0)
    logprobs: list[LogProbRecord]


class OutputMessage(Shape):
    """What the model said."""

    type: Literal["message"]
    id: str
    status: Ended
    role: Literal["assistant"]
    content: list[OutputText] = Field(min_length=1, max_length=1)


class FunctionCall(Shape):
    """A call that the model asks for."""

    type: Literal["function_call"]
    id: str
    status: Ended
    call_id: str
    name: str
    arguments: str


class InputDetails(Shape):
    """Of the prompt's tokens, those that the cache knew, and those that it learnt."""

    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(Shape):
    """Of the answer's tokens, those that are thought."""

    reasoning_tokens: int


class ResponseUsage(Shape):
    """Tokens."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ToldReasoning(Shape):
    """How hard it was to think."""

    effort: Effort | None
    summary: None


class ToldText(Shape):
    """What the text had to look like."""

    format: PlainFormat | SchemaFormat


class ToldTool(Shape):
    """A function that might be called."""

    type: Literal["function"]
    name: str
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class IncompleteDetails(Shape):
    """Why it broke off."""

    reason: Literal["max_output_tokens"]


class ResponseObject(Shape):
    """An answer, with what was asked."""

    id: str
    object: Literal["response"]
    created_at: int
    completed_at: int | None
    model: str
    status: Ended
    error: None
    incomplete_details: IncompleteDetails | None
    output: list[ThoughtItem | OutputMessage | FunctionCall]
    usage: ResponseUsage
    background: Literal[False]
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    previous_response_id: None
    prompt_cache_key: str | None
    reasoning: ToldReasoning
    safety_identifier: str | None
    service_tier: Literal["default"]
    temperature: float
    text: ToldText
    tool_choice: Literal["none", "auto", "required"] | NamedFunction
    tools: list[ToldTool]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"]
    user: str | None
