"""Scores changed by what a sample has seen: bias and penalties. Shapes: R rows, V vocabulary."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from clearseek.engine.request import Sampling


class SeenTokens:
    """Which tokens a sample's prompt holds, and how often its completion has each."""

    def __init__(self, prompt: Sequence[int]) -> None:
        """Nothing is said yet."""
        ids = list(dict.fromkeys(prompt))
        self._place = {token: place for place, token in enumerate(ids)}
        self._ids = np.array(ids, np.int64)
        self._counts = np.zeros(len(ids), np.float32)

    def note(self, token: int) -> None:
        """One more token of the completion."""
        place = self._place.setdefault(token, len(self._place))
        if place == len(self._ids):
            room = np.zeros(max(16, len(self._ids)))
            self._ids = np.concatenate([self._ids, room.astype(np.int64)])
            self._counts = np.concatenate([self._counts, room.astype(np.float32)])
        self._ids[place] = token
        self._counts[place] += 1

    @property
    def ids(self) -> np.ndarray:
        """Every token seen, each once."""
        return self._ids[: len(self._place)]

    @property
    def counts(self) -> np.ndarray:
        """How often the completion has each of `ids`, fp32; 0 for one that only the prompt has."""
        return self._counts[: len(self._place)]


def has_penalties(sampling: Sampling) -> bool:
    """Whether the tokens seen matter."""
    neutral = (1.0, 0.0, 0.0)
    return (sampling.repetition_penalty, sampling.frequency_penalty, sampling.presence_penalty) != neutral


def add_bias(scores: Tensor, places: Sequence[int], biases: Sequence[Mapping[int, float]]) -> None:
    """Add `logit_bias` to the scores [R, V] of the rows at `places`, in place."""
    if not places:
        return
    rows = _on(scores, np.repeat(np.array(places), [len(bias) for bias in biases]))
    ids = _on(scores, np.array([token for bias in biases for token in bias], np.int64))
    values = _on(scores, np.array([value for bias in biases for value in bias.values()], np.float32))
    scores[rows, ids] += values


def add_penalties(
    scores: Tensor, places: Sequence[int], samplings: Sequence[Sampling], seen: Sequence[SeenTokens]
) -> None:
    """Apply penalties to the scores [R, V] of the rows at `places`, in place.

    Repetition as in CTRL (arXiv:1909.05858, equation 3, and for scores below 0 as Hugging Face does), for tokens of
    prompt and completion; then frequency and presence as in OpenAI's API, for tokens of the completion.
    """
    if not places:
        return
    lengths = [len(tokens.ids) for tokens in seen]
    rows = _on(scores, np.repeat(np.array(places), lengths))
    ids = _on(scores, np.concatenate([tokens.ids for tokens in seen]))
    counts = _on(scores, np.concatenate([tokens.counts for tokens in seen]))

    def setting(name: str) -> Tensor:
        return _on(scores, np.repeat(np.array([getattr(s, name) for s in samplings], np.float32), lengths))

    values, repetition = scores[rows, ids], setting("repetition_penalty")
    values = torch.where(values < 0, values * repetition, values / repetition)
    values = values - counts * setting("frequency_penalty")
    scores[rows, ids] = values - (counts > 0) * setting("presence_penalty")


def _on(scores: Tensor, values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).to(scores.device)
