"""How a server is run: where it listens, what it lets in, how much it takes on at once."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from clearseek.config.model import Table


class Server(Table):
    """Settings of `clearseek serve`."""

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    hosts: tuple[str, ...] = Field(default=(), description="names besides the loopback's that it answers to")
    metrics_prefix: Literal["clearseek", "vllm"] = "clearseek"
    strict: bool = Field(default=False, description="refuse what DeepSeek's own service refuses in a history")
    reasoning_alias: bool = Field(
        default=False, description="thoughts in chats also by vLLM's name, reasoning"
    )
    max_running: int = Field(default=64, ge=1, le=4096, description="answers of a model at once")
    max_waiting: int = Field(default=256, ge=0, description="answers that may wait for their turn; then 429")
    max_models: int | None = Field(default=None, ge=1, description="open at once; None: what memory allows")
    max_body_bytes: int = Field(default=16 << 20, ge=1024)
    max_import_bytes: int = Field(default=256 << 20, ge=1024, description="of conversations as one file")
    body_seconds: float = Field(default=30.0, gt=0, description="for a request's body to arrive")
    keep_alive_seconds: float = Field(default=10.0, gt=0, description="of silence before a sign of life")
    drain_seconds: float = Field(default=60.0, ge=0, description="for answers on their way when it is ended")
    log: Literal["text", "json"] = "text"
    history: Path | None = Field(
        default=None, description="the directory for conversations that are kept, if any"
    )
