"""Shapes of what is answered, for the OpenAPI description; tests hold every answer against them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid")


class ErrorDetail(Shape):
    """What is wrong: in words, by kind, which field, a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Shape):
    """An error."""

    error: ErrorDetail


class TokenRecord(Shape):
    """A token and its log-probability."""

    token: str
    logprob: float = Field(le=0)
    bytes: list[int]


class LogProbRecord(TokenRecord):
    """The same with the likeliest at its place."""

    top_logprobs: list[TokenRecord]
    # where processed_logprobs asks
    raw_logprob: float | None = Field(default=None, le=0)
    processed_logprob: float | None = Field(default=None, le=0)
    kept_mass: float | None = Field(default=None, ge=0, le=1)


class ChoiceLogProbs(Shape):
    """Of the answer's tokens and of the thought's."""

    content: list[LogProbRecord]
    reasoning_content: list[LogProbRecord]


class CalledFunction(Shape):
    """Its name and its arguments, JSON as text."""

    name: str
    arguments: str


class ToolCall(Shape):
    """A call the model asks for."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class AnswerMessage(Shape):
    """What the model said."""

    role: Literal["assistant"]
    content: str | None
    reasoning_content: str | None = None
    reasoning: str | None = None  # by --reasoning-alias
    tool_calls: list[ToolCall] | None = None


class ChatChoice(Shape):
    """One of the answers."""

    index: int
    message: AnswerMessage
    logprobs: ChoiceLogProbs | None
    finish_reason: Literal["stop", "length", "tool_calls", "deadline"]  # the last where timeout_seconds asks


class PromptDetails(Shape):
    """Of the prompt's tokens, those that the cache knew."""

    cached_tokens: int


class CompletionDetails(Shape):
    """Of the answer's tokens, those that are thought."""

    reasoning_tokens: int


class Usage(Shape):
    """Tokens, as OpenAI and DeepSeek count them."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails | None = None
    prompt_cache_hit_tokens: int
    prompt_cache_miss_tokens: int


class ChatCompletion(Shape):
    """A chat's answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class TextLogProbs(Shape):
    """OpenAI's older form: lists beside one another."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]
    # where processed_logprobs asks
    raw_token_logprobs: list[float | None] | None = None
    processed_token_logprobs: list[float | None] | None = None
    kept_mass: list[float | None] | None = None


class TextChoice(Shape):
    """One of the texts."""

    index: int
    text: str
    logprobs: TextLogProbs | None
    finish_reason: Literal["stop", "length", "deadline"]
    token_ids: list[int] | None = None


class TextCompletion(Shape):
    """Texts that go on."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class ModelCard(Shape):
    """A model that can be asked."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None = None


class ModelList(Shape):
    """All of them."""

    object: Literal["list"]
    data: list[ModelCard]


class Embedding(Shape):
    """A text's vector, as numbers or in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Shape):
    """Tokens of the texts."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Shape):
    """A vector for each text."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class Tokens(Shape):
    """A text's tokens."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str | None] | None


class Text(Shape):
    """The text of tokens."""

    prompt: str


class Health(Shape):
    """It answers."""

    status: Literal["ok"]


class Ready(Shape):
    """It takes requests, to these models."""

    status: Literal["ready"]
    models: list[str]


class BalanceInfo(Shape):
    """What there is of one currency, in decimals as text."""

    currency: Literal["USD"]
    total_balance: str
    granted_balance: str
    topped_up_balance: str


class Balance(Shape):
    """DeepSeek's answer to who asks what is left."""

    is_available: bool
    balance_infos: list[BalanceInfo]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorBody} for status in ("4XX", 422, 503)
}  # FastAPI describes 422 its own way unless told


def streamed(shape: type[BaseModel], chunk: str) -> dict[int | str, dict[str, Any]]:
    """The description of an answer that comes whole, or as events, each with `chunk` as JSON in its data."""
    text = {"type": "string"}
    one = {"type": "object", "properties": {"data": text, "event": text}, "required": ["data"]}
    events = {"text/event-stream": {"schema": {**one, "description": f"{chunk}, a server-sent event each"}}}
    return {200: {"model": shape, "content": events}}
