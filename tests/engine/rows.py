"""Rows without a model: settings, a prompt, and scores that a test makes up."""

from collections.abc import Sequence

import numpy as np

from clearseek.engine.request import Request, Sampling
from clearseek.engine.row import Row, RowMaker

END = 0


def row(vocab_size: int, prompt: Sequence[int] = (1,), said: Sequence[int] = (), **settings) -> Row:
    """A row of a request with these settings, after `said`."""
    maker = RowMaker(vocab_size, {END})
    request = Request(tuple(prompt), 0, sampling=Sampling(**settings))
    maker.check(request)
    made = maker.start(request)
    for token in said:
        made.note(token)
    return made


def changed(
    logits: np.ndarray, prompt: Sequence[int] = (), said: Sequence[int] = (), **settings
) -> np.ndarray:
    """Scores [V] over the temperature after bias and penalties, one token at a time in float64."""
    sampling = Sampling(**settings)
    scores = logits.astype(np.float64).copy()
    for token, value in sampling.logit_bias.items():
        scores[token] += value
    for token in {*prompt, *said}:
        factor = sampling.repetition_penalty
        scores[token] = scores[token] * factor if scores[token] < 0 else scores[token] / factor
    for token in said:
        scores[token] -= sampling.frequency_penalty
    for token in set(said):
        scores[token] -= sampling.presence_penalty
    return scores / (sampling.temperature or 1.0)


def exact(logits: np.ndarray, prompt: Sequence[int] = (), said: Sequence[int] = (), **settings) -> np.ndarray:
    """The distribution [V] that is drawn from, in float64, by a loop over the tokens in descending order."""
    sampling = Sampling(**settings)
    probs = softmax(changed(logits, prompt, said, **settings))
    if sampling.temperature == 0:
        return np.eye(len(probs))[probs.argmax()]
    order = sorted(range(len(probs)), key=lambda token: (-probs[token], token))
    order = [token for token in order if probs[token] >= sampling.min_p * probs[order[0]]]
    if sampling.top_k:
        least = probs[order[min(sampling.top_k, len(order)) - 1]]
        order = [token for token in order if probs[token] >= least]
    whole, mass, kept = sum(probs[token] for token in order), 0.0, []
    for token in order:
        if kept and mass >= sampling.top_p * whole:
            break
        kept.append(token)
        mass += probs[token]
    left = np.zeros(len(probs))
    left[kept] = probs[kept] / mass
    return left


def softmax(scores: np.ndarray) -> np.ndarray:
    """Probabilities [V]."""
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()
