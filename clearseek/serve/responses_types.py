"""The body of OpenAI's `/v1/responses`: a conversation as items, and what a server without a store can do."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, JsonValue, Tag

from clearseek.serve.openai_chat_types import Effort
from clearseek.serve.wire import Wire

Status = Literal["in_progress", "completed", "incomplete"]


class TextPart(Wire):
    """A part of what was said: by the user, or by a model before."""

    type: Literal["input_text", "output_text", "text"]
    text: str
    annotations: list[Any] | None = Field(default=None, max_length=0)
    logprobs: list[Any] | None = None  # of an answer that is sent back; they change nothing in it


class MessageItem(Wire):
    """A turn. Items of an answer come back with more fields than those that a client writes itself."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[TextPart]
    id: str | None = None
    status: Status | None = None
    phase: Literal["commentary", "final_answer"] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        return _text(self.content)


class ReasoningText(Wire):
    """A part of a thought, or of its summary."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(Wire):
    """A thought that is sent back."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: list[ReasoningText] = Field(default_factory=list)
    content: list[ReasoningText] | None = None
    encrypted_content: str | None = Field(default=None, max_length=0)  # none comes from here
    status: Status | None = None

    @property
    def text(self) -> str:
        """The thought itself, or what there is of it."""
        return "".join(part.text for part in self.content or self.summary)


class CallItem(Wire):
    """A call that a model asked for."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: Status | None = None


class ResultItem(Wire):
    """What a tool answered."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[TextPart]
    id: str | None = None
    name: str | None = None
    status: Status | None = None

    @property
    def text(self) -> str:
        """The output as one text."""
        return _text(self.output)


def _kind(item: Any) -> Any:
    """What an item is; those without a type are messages."""
    return item.get("type", "message") if isinstance(item, dict) else getattr(item, "type", None)


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[CallItem, Tag("function_call")]
    | Annotated[ResultItem, Tag("function_call_output")],
    Discriminator(_kind),
]


def _as_items(said: Any) -> Any:
    """A text alone is what the user says."""
    return [{"role": "user", "content": said}] if isinstance(said, str) else said


Items = Annotated[
    list[Item], Field(min_length=1), BeforeValidator(_as_items, json_schema_input_type=str | list[Item])
]


class FunctionTool(Wire):
    """A function that may be called; other tools run at OpenAI and are none here."""

    type: Literal["function"]
    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class NamedFunction(Wire):
    """The function that has to be called."""

    type: Literal["function"]
    name: str


class PlainFormat(Wire):
    """Text, or any JSON object."""

    type: Literal["text", "json_object"]


class SchemaFormat(Wire):
    """JSON of one schema."""

    type: Literal["json_schema"]
    name: str = Field(max_length=64)
    schema_: dict[str, JsonValue] | bool = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextConfig(Wire):
    """What the text has to look like."""

    format: Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")] = PlainFormat(type="text")
    verbosity: Literal["medium"] | None = None  # the service's default; no model here has another


class Reasoning(Wire):
    """How hard to think. The thought itself is told; "auto" leaves it to the service whether there is a summary."""

    effort: Effort | None = None
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None  # its name of old


class StreamOptions(Wire):
    """What a stream has besides."""

    include_obfuscation: bool | None = None  # padding against listeners; there are none on one machine


class ResponsesRequest(Wire):
    """A conversation to be answered. What needs a store or OpenAI's own tools is refused in words."""

    model: str | None = Field(default=None, max_length=1000)
    input: Items
    instructions: str | None = None
    tools: list[FunctionTool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig = TextConfig()
    reasoning: Reasoning | None = None
    max_output_tokens: int | None = Field(default=None, ge=1, le=2**31)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    include: list[Literal["message.output_text.logprobs", "reasoning.encrypted_content"]] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = Field(default=None, max_length=512)
    truncation: Literal["disabled"] | None = None
    # these only say what OpenAI's service is to do with an answer besides giving it
    metadata: dict[str, str] | None = None
    service_tier: Literal["auto", "default"] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    # these need a store, which is not here; they are read to say so
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: JsonValue | None = None
    prompt: JsonValue | None = None

    @property
    def wants_log_probs(self) -> bool:
        """Whether tokens are told with their log-probabilities."""
        return bool(self.top_logprobs) or "message.output_text.logprobs" in (self.include or ())


def _text(content: str | list[TextPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
