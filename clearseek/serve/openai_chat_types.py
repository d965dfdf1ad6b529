"""The body of `/v1/chat/completions`, OpenAI's fields and DeepSeek's."""

from typing import Any, Literal

from pydantic import Field

from clearseek.serve.wire import Wire


class TextPart(Wire):
    """A part of a message's content."""

    type: Literal["text"]
    text: str


class CalledFunction(Wire):
    """What an assistant message called; `arguments` are JSON as text."""

    name: str
    arguments: str


class ToolCall(Wire):
    """A call in an assistant message of the history."""

    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class Message(Wire):
    """One turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None
    name: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None  # vLLM's name for the same
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    prefix: bool | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(Wire):
    """What a stream tells besides."""

    include_usage: bool = False


class Thinking(Wire):
    """DeepSeek's switch."""

    type: Literal["enabled", "disabled"]


class ChatRequest(Wire):
    """One conversation to be answered."""

    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int = Field(default=1, ge=1, le=128)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    thinking: Thinking | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
