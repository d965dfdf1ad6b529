"""Speculation: how next tokens are guessed, and how many of the guesses came true.

The model scores guessed tokens beside the one before them in one step. At each place the sample's token is then drawn
as it always is, with the sample's own number; the guess is accepted where it is that token, and the first that isn't
ends the step. For a guess that is one token this is speculative sampling (arXiv:2302.01318): it is accepted with the
probability that the model gives it, and what replaces a rejected one is drawn from the rest. So completions are,
token for token, what they are without speculation.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from clearseek.config.errors import InputError
from clearseek.model.decoder import Decoder
from clearseek.model.resolve import resolve_source
from clearseek.model.source import load_source

MOST_TOKENS = 16


@dataclass(frozen=True)
class Speculation:
    """`kind`: "mtp" (the model's own multi-token module), "ngram" (what followed the same words before) or "draft".

    `num_tokens` are guessed at a time. A "draft" needs a small model of the same vocabulary.
    """

    kind: str
    num_tokens: int = 2
    draft: Decoder | None = None

    def check(self, model: Decoder) -> None:
        """Raise InputError where it can't be done with this model."""
        if not 1 <= self.num_tokens <= MOST_TOKENS:
            raise InputError(
                f"speculation guesses 1 to {MOST_TOKENS} tokens at a time, not {self.num_tokens}"
            )
        if self.kind == "mtp" and not model.config.num_mtp_layers:
            raise InputError(
                "this model has no multi-token module to speculate with; use ngram or a draft model"
            )
        if self.kind == "draft":
            self._check_draft(model)
        elif self.kind not in ("mtp", "ngram"):
            raise InputError(f"speculation is by mtp, ngram or a draft model, not by {self.kind}")

    def _check_draft(self, model: Decoder) -> None:
        if self.draft is None:
            raise InputError("speculation by a draft model needs one")
        theirs, ours = self.draft.config.vocab_size, model.config.vocab_size
        if theirs != ours:
            raise InputError(
                f"the draft model knows {theirs} tokens, the model {ours}: they must share a tokenizer"
            )


def read_speculation(text: str, device: torch.device | None = None) -> Speculation:
    """`mtp`, `ngram` or a draft model's directory or file, `:TOKENS` behind it where it is not 2 at a time.

    Raises InputError where it is none of these, or where no draft model can be read there.
    """
    kind, colon, number = text.rpartition(":")
    if not colon or not number.isdigit():
        kind, number = text, "2"
    if kind in ("mtp", "ngram"):
        return Speculation(kind, int(number))
    if not kind or not Path(kind).exists():
        raise InputError(
            f"{text!r} is no way to speculate: it is mtp, ngram or a draft model's directory, with :TOKENS behind it"
        )
    return Speculation("draft", int(number), load_source(resolve_source(Path(kind)), device=device or "cpu"))


@dataclass
class Acceptance:
    """How many guesses there were at each place after the certain token, and how many came true."""

    guessed: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)

    def note(self, guessed: int, accepted: int) -> None:
        """One step of one sample."""
        for counts, count in ((self.guessed, guessed), (self.accepted, accepted)):
            counts += [0] * (guessed - len(counts))
            for place in range(count):
                counts[place] += 1

    def add(self, guessed: list[int], accepted: list[int]) -> None:
        """What was counted by place elsewhere."""
        for counts, more in ((self.guessed, guessed), (self.accepted, accepted)):
            counts += [0] * (len(more) - len(counts))
            for place, count in enumerate(more):
                counts[place] += count

    @property
    def rates(self) -> list[float]:
        """The share of guesses at each place that came true; those before them have to as well."""
        return [accepted / guessed for guessed, accepted in zip(self.guessed, self.accepted, strict=True)]
