"""From logits to tokens: temperature and nucleus truncation, one uniform number per token, inverse sampling.

Shapes: B rows, V vocabulary.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from clearseek.model.kernels import functions as kernels
from clearseek.model.kernels.library import fits
from clearseek.model.log_probs import log_probs_from_logits

_LIKELIEST = 64  # tokens per row that a nucleus is first looked for among


@dataclass
class Sampled:
    """One drawn token per row, its log-probability at the temperature, the distribution's entropy."""

    tokens: Tensor  # [B] int64
    log_probs: Tensor  # [B] fp32, before truncation: what the trainer computes too
    entropies: Tensor  # [B] fp32, in nats


def sample(
    logits: Tensor, uniforms: Tensor, temperature: float, top_p: float, dtype: torch.dtype = torch.float32
) -> Sampled:
    """Draw one token per row of fp32 logits [B, V] of a model that computes in `dtype`, with uniform numbers [B].

    Temperature 0 takes the likeliest token and reports its log-probability at temperature 1.
    """
    if temperature > 0 and top_p == 1 and fits(dtype, logits):
        return Sampled(*kernels.draw(logits, uniforms, temperature))
    log_probs = log_probs_from_logits(logits, temperature or 1.0)
    probs = log_probs.exp()
    entropies = -(probs * log_probs).sum(-1)
    if temperature == 0:
        tokens = log_probs.argmax(-1)
    elif top_p < 1:
        tokens = _draw_nucleus(probs, uniforms, top_p)
    else:
        tokens = _draw(probs, uniforms)
    return Sampled(tokens, log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), entropies)


def _draw(probs: Tensor, uniforms: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds the uniform number."""
    cumulative = probs.cumsum(-1)
    # scaled by the actual total, so that rounding can never choose a token of probability 0
    threshold = (uniforms * cumulative[:, -1]).unsqueeze(-1)
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(-1).clamp(max=probs.shape[-1] - 1)


def _draw_nucleus(probs: Tensor, uniforms: Tensor, top_p: float) -> Tensor:
    """Draw among the smallest set of likeliest tokens whose mass reaches `top_p` (arXiv:1904.09751).

    The set is nearly always small: only rows whose likeliest tokens don't reach the mass are sorted whole.
    """
    likeliest, index = probs.topk(min(_LIKELIEST, probs.shape[-1]), dim=-1)
    drawn = _draw_within(likeliest, index, uniforms, top_p)
    wide = (likeliest.sum(-1) < top_p).nonzero().squeeze(-1)
    if wide.numel():
        ordered, everything = torch.sort(probs[wide], dim=-1, descending=True, stable=True)
        drawn[wide] = _draw_within(ordered, everything, uniforms[wide], top_p)
    return drawn


def _draw_within(ordered: Tensor, index: Tensor, uniforms: Tensor, top_p: float) -> Tensor:
    """Draw from descending probabilities cut off at `top_p`; `index` says which tokens they are."""
    outside = ordered.cumsum(-1) - ordered >= top_p
    drawn = _draw(ordered.masked_fill(outside, 0.0), uniforms)
    return index.gather(-1, drawn.unsqueeze(-1)).squeeze(-1)
