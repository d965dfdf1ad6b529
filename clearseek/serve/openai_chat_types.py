"""The body of `/v1/chat/completions`: OpenAI's fields, DeepSeek's, and those of vLLM that its clients send."""

from typing import Any, Literal

from pydantic import Field, JsonValue

from clearseek.serve.wire import Wire

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max", "ultra"]


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
    index: int | None = None  # streams have it, and clients send it back


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
    annotations: list[Any] | None = Field(
        default=None, max_length=0
    )  # OpenAI's own answers have an empty one

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "".join(part.text for part in self.content)
        return self.content or ""


class FunctionDefinition(Wire):
    """A function that may be called."""

    name: str = Field(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")
    description: str | None = None
    parameters: dict[str, JsonValue] | None = None
    strict: bool | None = None


class Tool(Wire):
    """A tool; functions are the only kind."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(Wire):
    """Its name."""

    name: str


class NamedTool(Wire):
    """The function that has to be called."""

    type: Literal["function"]
    function: NamedFunction


class StreamOptions(Wire):
    """What a stream tells besides."""

    include_usage: bool = False
    include_obfuscation: bool | None = (
        None  # OpenAI's padding against listeners; there are none on one machine
    )


class Thinking(Wire):
    """DeepSeek's switch."""

    type: Literal["enabled", "disabled"]


class JsonSchema(Wire):
    """A schema with OpenAI's wrapping."""

    name: str = Field(default="answer", max_length=64)
    description: str | None = None
    schema_: dict[str, JsonValue] | bool = Field(default=True, alias="schema")
    strict: bool | None = None


class ResponseFormat(Wire):
    """What the answer has to look like."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Wire):
    """What the answer has to look like, one of these (vLLM's): `grammar` is in Lark's syntax, from its rule `start`."""

    json_: dict[str, JsonValue] | str | None = Field(default=None, alias="json")  # a schema
    json_object: bool | None = None  # any
    regex: str | None = None  # which matches all of it
    choice: list[str] | None = None
    grammar: str | None = None
    fast_forward: bool | None = None  # ours: what alone can come next is put there at once, undrawn

    @property
    def forms(self) -> tuple[Any, ...]:
        """All of them, in the order of their names here."""
        return self.json_, self.json_object, self.regex, self.choice, self.grammar


class Drawing(Wire):
    """How tokens are drawn: the fields that chats and completions share."""

    model: str | None = Field(default=None, max_length=1000)
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1, le=2**31)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    n: int = Field(default=1, ge=1, le=128)
    seed: int | None = Field(default=None, ge=-(2**63), le=2**63 - 1)
    stop: str | list[str] | None = None
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2)
    presence_penalty: float | None = Field(default=None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = None
    user: str | None = Field(default=None, max_length=512)
    user_id: str | None = Field(default=None, max_length=512)  # DeepSeek's
    # vLLM's
    top_k: int | None = Field(default=None, ge=-1, le=2**31)
    min_p: float | None = Field(default=None, ge=0, le=1)
    repetition_penalty: float | None = Field(default=None, gt=0, le=100)
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    structured_outputs: StructuredOutputs | None = None
    # ours
    timeout_seconds: float | None = Field(default=None, gt=0, le=1e6)  # then what there is is the answer
    processed_logprobs: bool | None = None  # beside logprobs: of what was drawn from, and at temperature 1


class ChatRequest(Drawing):
    """One conversation to be answered."""

    messages: list[Message] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=2**31)
    logprobs: bool = False
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[Tool] | None = Field(default=None, max_length=128)
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    thinking: Thinking | None = None
    reasoning_effort: Effort | None = None
    thinking_token_budget: int | None = Field(default=None, ge=0, le=2**31)  # vLLM's
    chat_template_kwargs: dict[str, JsonValue] | None = None  # vLLM's
    # these only say what OpenAI's service is to do with an answer besides giving it
    metadata: dict[str, str] | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
