"""Log-probabilities that are reported: of the likeliest tokens, of what was drawn from, and of a prompt's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from clearseek.engine.request import Alternatives, Draw, Sampling
from clearseek.engine.row import Row
from clearseek.engine.row_sampler import Drawn
from clearseek.model.log_probs import log_probs_from_logits


def alternatives(sampling: Sampling, logits: Tensor, token: int, log_prob: float) -> Alternatives | None:
    """The `top_log_probs` likeliest tokens of a row's logits [V] at its temperature; None where it wants none.

    `token` with `log_prob` was drawn: where it is among them it has that very value.
    """
    if not sampling.top_log_probs:
        return None
    every = log_probs_from_logits(logits, sampling.temperature or 1.0)
    (found,) = _likeliest(every.unsqueeze(0), sampling.top_log_probs)
    values = (
        log_prob if own == token else value for own, value in zip(found.tokens, found.log_probs, strict=True)
    )
    return Alternatives(found.tokens, tuple(values))


def draws(rows: Sequence[Row], drawn: Drawn, logits: Tensor) -> dict[int, Draw]:
    """Of the rows that ask, by place: what their tokens were drawn from, by the logits [B, V] of all."""
    places = [place for place, row in enumerate(rows) if row.sampling.processed_log_probs]
    if not places:
        return {}
    index = torch.tensor(places, device=logits.device)
    raw = log_probs_from_logits(logits[index]).gather(-1, drawn.tokens[index].unsqueeze(-1)).squeeze(-1)
    same = torch.tensor(
        [rows[place].sampling.temperature in (0, 1) for place in places], device=logits.device
    )
    raw = raw.where(~same, drawn.log_probs[index])  # one number for one thing, to the bit
    told = (raw, drawn.processed_log_probs[index], drawn.kept_mass[index])
    found = (Draw(*values) for values in zip(*(one.tolist() for one in told), strict=True))
    return dict(zip(places, found, strict=True))


class PromptReport:
    """The log-probability of each of a prompt's tokens given those before it, and the `count` likeliest there.

    At temperature 1, whatever the completion is drawn at: they say what the model thinks of the prompt. It is filled
    in as the prompt is read; a request's samples share one. The first token has neither, nor has what is not read yet.
    """

    def __init__(self, prompt: Sequence[int], count: int) -> None:
        """`count` 0: the tokens' own alone."""
        self._prompt, self._count = prompt, count
        self.forget()

    def forget(self) -> None:
        """It was of weights that are gone; what was handed out stays as it is."""
        self.num_known = 1  # tokens from the beginning
        self.log_probs: list[float | None] = [None] * len(self._prompt)
        self.alternatives: list[Alternatives | None] = [None] * len(self._prompt)

    @property
    def is_whole(self) -> bool:
        """Whether there is nothing more to be known."""
        return self.num_known >= len(self._prompt)

    def note(self, first: int, logits: Tensor) -> None:
        """Scores [T, V] after the tokens from `first` on."""
        assert first < self.num_known, "a prompt is read without gaps"
        begin, end = first + 1, first + 1 + len(logits)
        every = log_probs_from_logits(logits)
        self.log_probs[begin:end] = every[range(len(logits)), list(self._prompt[begin:end])].tolist()
        if self._count:
            self.alternatives[begin:end] = _likeliest(every, self._count)
        self.num_known = max(self.num_known, end)


def _likeliest(log_probs: Tensor, count: int) -> list[Alternatives]:
    """Of each row [T, V]."""
    values, tokens = log_probs.topk(min(count, log_probs.shape[-1]))
    rows = zip(tokens.tolist(), values.tolist(), strict=True)
    return [Alternatives(tuple(own), tuple(their)) for own, their in rows]
