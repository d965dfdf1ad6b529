"""What is asked of the engine, and what comes back."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from clearseek.engine.constraint import Constraint

FinishReason = Literal["stop", "length", "cancelled", "deadline", "error"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. Temperature 0 takes the likeliest; RL samples at 1 and truncates nothing.

    Scores are changed in vLLM's order: the constraint's mask, `logit_bias`, penalties, temperature, `min_p`, `top_k`,
    `top_p`. `sampling_settings.check_sampling` says what each may be.
    """

    temperature: float = 1.0
    top_p: float = 1.0  # the smallest set of likeliest tokens that holds this share
    max_tokens: int = 96
    top_k: int = 0  # the k likeliest, and those as likely as the last of them; 0: all
    min_p: float = 0.0  # tokens at least this many times as likely as the likeliest
    repetition_penalty: float = 1.0  # Hugging Face's: counts the prompt's tokens and the completion's
    frequency_penalty: float = 0.0  # OpenAI's, times how often the completion has a token; not the prompt's
    presence_penalty: float = 0.0  # OpenAI's, once where the completion has a token; not the prompt's
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # token id → added to its score
    stop: tuple[str, ...] = ()  # texts that end the completion and are cut from it
    stop_ids: tuple[int, ...] = ()  # tokens that end it, besides the model's own
    ignore_eos: bool = False  # the model's own end tokens don't end it
    top_log_probs: int = 0  # how many likeliest tokens to report beside each drawn one
    prompt_log_probs: int | None = None  # report the prompt's, at temperature 1, and so many likeliest beside
    thinking_budget: int | None = None  # tokens of thought after which it is closed; None: no bound
    constraint: Constraint | None = None
    routed_experts: bool = False  # report to which experts each token went
    shown_ids: tuple[
        int, ...
    ] = ()  # special tokens that its text keeps, for who reads calls of tools from it
    processed_log_probs: bool = False  # report of each token what it was drawn from: `Completion.draws`

    @cached_property
    def is_simple(self) -> bool:
        """Whether its tokens are drawn by temperature, top-k and top-p alone, and no text ends it nor any other token.

        The kernels decode such on without a way back.
        """
        drawn = replace(self, ignore_eos=False, prompt_log_probs=None, routed_experts=False, shown_ids=())
        return drawn == Sampling(self.temperature, self.top_p, self.max_tokens, self.top_k)


@dataclass(frozen=True)
class Request:
    """One prompt and how many completions it wants; sample i draws from the stream addressed by (key, i).

    `best_of` draws so many and answers with the `num_samples` of the highest mean log-probability.
    """

    prompt: tuple[int, ...]
    key: int
    num_samples: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    best_of: int | None = None
    client: str = ""  # whose it is: clients are served in turn
    deadline_seconds: float | None = None  # after it was submitted, what there is of it is its answer

    @property
    def num_drawn(self) -> int:
        """How many samples are drawn for it."""
        return self.best_of or self.num_samples


@dataclass(frozen=True)
class Alternatives:
    """The likeliest tokens at one place, likeliest first, with the model's own log-probabilities."""

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]


@dataclass(frozen=True)
class Draw:
    """What one token was drawn from, and what the model itself thinks of it.

    `Completion.log_probs` are between the two: the model's at the temperature, before anything else.
    """

    raw_log_prob: float  # the model's own at temperature 1
    processed_log_prob: (
        float  # after constraint, bias, penalties, temperature and truncation; 0: nothing else could be
    )
    kept_mass: float  # the share of the changed distribution that min-p, top-k and top-p kept


@dataclass
class Completion:
    """One sampled completion; `tokens` include the token that ended it."""

    tokens: list[int]
    log_probs: list[float]
    finish_reason: FinishReason
    entropy: float = 0.0  # mean over its tokens, in nats
    weights_version: int = 0  # of the last
    forced: frozenset[int] = frozenset()  # places of tokens that were put there, not drawn: no gradient
    stopped_by: str | int | None = None  # the stop string or id of its request that ended it
    alternatives: list[Alternatives] = field(
        default_factory=list
    )  # of each token, where `top_log_probs` asks
    draws: list[Draw] = field(default_factory=list)  # of each token, where `processed_log_probs` asks
    text: str | None = None  # what was said, cut at a stop string; None: its request names none
    error: str | None = (
        None  # what ended it: a constraint that can't be obeyed, or scores that are no numbers
    )
    blames_request: bool = False  # whether it is the constraint
    # of each token of the prompt, where `prompt_log_probs` asks; None: the first, and what was not read
    prompt_log_probs: list[float | None] | None = None
    prompt_alternatives: list[Alternatives | None] = field(default_factory=list)
    # [T, MoE layers, experts per token] int16 of the prompt's tokens and its own, where `routed_experts` asks; the last
    # token is none of them, since no layer has seen it. What was sampled by older weights has their routes.
    routed_experts: np.ndarray | None = field(default=None, compare=False)
    # (number of its first token, version) for each version of the weights that drew some; empty: `weights_version` all
    drawn_by: tuple[tuple[int, int], ...] = ()

    @property
    def said(self) -> list[int]:
        """The tokens without the one that ended it."""
        is_end = self.finish_reason == "stop" and not isinstance(self.stopped_by, str)
        return self.tokens[:-1] if is_end else self.tokens
