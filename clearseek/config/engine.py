"""Where a stage's completions are sampled: by the engine in this process, or by a vLLM server."""

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator

from clearseek.config.model import Table

ENGINES = ("clearseek", "vllm")


class Vllm(Table):
    """A vLLM server that samples in the stead of our own engine.

    It takes a model's weights from a directory, so both sides have to see the same files.
    """

    kind: Literal["vllm"]
    url: str = "http://127.0.0.1:8000"
    directory: str | None = Field(
        default=None,
        description="where weights are put for the server to read; default: within the run directory",
    )
    requests_at_once: int = Field(default=64, ge=1, le=4096, description="prompts asked of it at a time")
    start_timeout_seconds: float = Field(
        default=900.0, gt=0, description="to start, to come back, or to take over weights"
    )
    answer_timeout_seconds: float = Field(default=1800.0, gt=0, description="for the completions of a prompt")

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not a web address, such as http://127.0.0.1:8000")
        return url.rstrip("/")


def _named(value: Any) -> Any:
    """A name alone stands for that engine with its defaults."""
    if not isinstance(value, str):
        return value
    if value not in ENGINES:
        raise ValueError(f"no engine {value!r}; known: {', '.join(ENGINES)}")
    return None if value == "clearseek" else {"kind": value}


EngineChoice = Annotated[Vllm | None, BeforeValidator(_named)]
