"""Log-probabilities that are reported beside what was drawn: of the likeliest tokens, and of a prompt's own."""

from collections.abc import Sequence

from torch import Tensor

from clearseek.engine.request import Alternatives, Sampling
from clearseek.model.log_probs import log_probs_from_logits


def alternatives(sampling: Sampling, logits: Tensor, token: int, log_prob: float) -> Alternatives | None:
    """The `top_log_probs` likeliest tokens of a row's logits [V] at its temperature; None where it wants none.

    `token` with `log_prob` was drawn: where it is among them it has that very value.
    """
    if not sampling.top_log_probs:
        return None
    found = _likeliest(log_probs_from_logits(logits, sampling.temperature or 1.0), sampling.top_log_probs)
    values = (
        log_prob if own == token else value for own, value in zip(found.tokens, found.log_probs, strict=True)
    )
    return Alternatives(found.tokens, tuple(values))


def prompt_log_probs(
    sampling: Sampling, logits: Tensor, prompt: Sequence[int]
) -> tuple[list[float | None], list[Alternatives | None]]:
    """The log-probability of each prompt token given those before it, and the `prompt_log_probs` likeliest there.

    `logits` [T − 1, V] are the scores after each prompt token but the last. The first token has neither. At the
    request's temperature, as those of the completion.
    """
    assert len(logits) == len(prompt) - 1, "one row of scores per prompt token but the last"
    every = log_probs_from_logits(logits, sampling.temperature or 1.0)
    own = every[range(len(prompt) - 1), list(prompt[1:])].tolist()
    count = sampling.prompt_log_probs
    beside = [_likeliest(row, count) if count else None for row in every]
    return [None, *own], [None, *beside]


def _likeliest(log_probs: Tensor, count: int) -> Alternatives:
    values, tokens = log_probs.topk(min(count, len(log_probs)))
    return Alternatives(tuple(tokens.tolist()), tuple(values.tolist()))
