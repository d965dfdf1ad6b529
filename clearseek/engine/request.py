"""What is asked of the engine, and what comes back."""

from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 takes the likeliest; RL samples at 1 and truncates nothing."""

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 96


@dataclass(frozen=True)
class Request:
    """One prompt and how many completions it wants; sample i draws from the stream addressed by (key, i)."""

    prompt: tuple[int, ...]
    key: int
    num_samples: int = 1
    sampling: Sampling = field(default_factory=Sampling)


@dataclass
class Completion:
    """One sampled completion; `tokens` include the token that ended it."""

    tokens: list[int]
    log_probs: list[float]
    finish_reason: FinishReason
    entropy: float = 0.0  # mean over its tokens, in nats
    weights_version: int = 0

    @property
    def said(self) -> list[int]:
        """The tokens without the one that ended it."""
        return self.tokens[:-1] if self.finish_reason == "stop" else self.tokens
