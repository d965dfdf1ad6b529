"""The body of Anthropic's `/v1/messages`."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from clearseek.serve.wire import Wire


class CacheControl(Wire):
    """Where a prompt may be cached; here every prompt is, so it changes nothing."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(Wire):
    """What all blocks may have."""

    cache_control: CacheControl | None = None


class TextBlock(Block):
    """Text."""

    type: Literal["text"]
    text: str
    citations: list[Any] | None = Field(default=None, max_length=0)


class ThinkingBlock(Block):
    """A thought that is sent back."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class ToolUseBlock(Block):
    """A call that is sent back."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, JsonValue]


class ToolResultBlock(Block):
    """What a tool answered."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[TextBlock] = ""
    is_error: bool | None = None


AnyBlock = Annotated[TextBlock | ThinkingBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]


class InputMessage(Wire):
    """A turn."""

    role: Literal["user", "assistant"]
    content: str | list[AnyBlock]


class AnthropicTool(Wire):
    """A tool that may be called."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,128}$")
    description: str | None = None
    input_schema: dict[str, JsonValue]
    type: Literal["custom"] | None = None
    strict: bool | None = None
    eager_input_streaming: bool | None = None  # arguments are streamed as they come, whoever asks
    cache_control: CacheControl | None = None


class ToolChoice(Wire):
    """Whether and which tool has to be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingChoice(Wire):
    """Whether the model thinks, for how many tokens at most, and whether that is told.

    There are no summaries here: "summarized" tells the thought itself, as it is told where nothing is said.
    """

    type: Literal["enabled", "disabled", "adaptive"]
    display: Literal["summarized", "omitted"] | None = None
    budget_tokens: int | None = Field(default=None, ge=0, le=2**31)


class OutputFormat(Wire):
    """What the answer has to look like."""

    type: Literal["json_schema"]
    schema_: dict[str, JsonValue] = Field(alias="schema")


class OutputConfig(Wire):
    """How hard to think (DeepSeek's switch, too), and what the answer has to look like."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: OutputFormat | None = None


class Metadata(Wire):
    """Who asks."""

    user_id: str | None = Field(default=None, max_length=512)


class Counted(Wire):
    """What a prompt is made of."""

    model: str = Field(max_length=1000, examples=["deepseek-flash"])  # any server here answers to it
    messages: list[InputMessage] = Field(min_length=1)
    system: str | list[TextBlock] | None = None
    tools: list[AnthropicTool] | None = Field(default=None, max_length=128)
    tool_choice: ToolChoice | None = None
    thinking: ThinkingChoice | None = None
    output_config: OutputConfig | None = None
    cache_control: CacheControl | None = None


class MessagesRequest(Counted):
    """A conversation to be answered."""

    max_tokens: int = Field(ge=1, le=2**31)
    stream: bool = False
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=2**31)
    stop_sequences: list[str] | None = Field(default=None, max_length=16)
    metadata: Metadata | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
