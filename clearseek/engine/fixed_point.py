"""Probabilities as whole numbers: their sums are the same in any order, on any device, in any batch.

A sum in floating point depends on how many rows stand beside it and on who adds it up; a draw near an edge would
then too. Shapes: R rows, K tokens.
"""

import torch
from torch import Tensor

_BITS = 38  # of a probability; with the 24 of a uniform number a product stays below 2^63
_CHANCE_BITS = 24  # `streams.uniforms` gives multiples of 2^-24
_LEAST_LOG_PROB = -200.0  # exp of it is 0 in fp32; 0 · -inf would not be a number


def weights_of(probs: Tensor) -> Tensor:
    """Probabilities [R, K] in fp32 as int64, in units of 2^-38; what is below that can't be drawn."""
    return (probs * 2.0**_BITS).long()


def shares(weights: Tensor, totals: Tensor) -> Tensor:
    """Weights [R] as shares of their rows' totals [R], fp32."""
    return weights.float() / totals.float()


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The place [R] where the running sum of weights [R, K] first exceeds uniform · total; never one of weight 0.

    Of weights that come from no numbers any place.
    """
    cumulative = weights.cumsum(-1)
    chances = (uniforms * 2.0**_CHANCE_BITS).long()
    threshold = (chances * cumulative[:, -1]) >> _CHANCE_BITS
    places = torch.searchsorted(cumulative, threshold.unsqueeze(-1), right=True).squeeze(-1)
    return places.clamp(max=weights.shape[-1] - 1)


def reaches(before: Tensor, totals: Tensor, share: Tensor) -> Tensor:
    """Whether weights [R, K] are at least a share [R] of the totals [R]; shares are rounded to 2^-24."""
    wanted = (share * 2.0**_CHANCE_BITS).long() * totals
    return (before << _CHANCE_BITS) >= wanted.unsqueeze(-1)


def entropies(probs: Tensor, log_probs: Tensor) -> Tensor:
    """Entropy [R] in nats of probabilities [R, K] and their logarithms."""
    surprise = probs * -log_probs.clamp(min=_LEAST_LOG_PROB)
    return weights_of(surprise).sum(-1).float() * 2.0**-_BITS
