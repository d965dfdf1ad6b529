"""The body of `/v1/completions`, and of DeepSeek's `/beta/completions`, which fills in the middle."""

from pydantic import Field

from clearseek.serve.openai_chat_types import Drawing


class CompletionRequest(Drawing):
    """Texts, or tokens, to be gone on with."""

    prompt: str | list[str] | list[int] | list[list[int]] = "<|endoftext|>"
    suffix: str | None = None
    echo: bool = False
    logprobs: int | None = Field(default=None, ge=0, le=20)
    best_of: int | None = Field(default=None, ge=1, le=128)
    return_token_ids: bool | None = None  # vLLM's, the next too
    return_tokens_as_token_ids: bool | None = None
