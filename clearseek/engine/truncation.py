"""min-p, top-k and top-p: how much of a distribution's tail is cut off before a token is drawn.

Each keeps the likeliest tokens down to some place, so that all a row needs is its tokens in descending order, and
nearly always only the first few. Order as vLLM's: min-p, top-k, then top-p of what they kept.
Shapes: R rows, V vocabulary, K tokens looked at.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from clearseek.engine.fixed_point import reaches

_LOOKED_AT = 64  # likeliest tokens per row; a row that keeps more is sorted whole


@dataclass(frozen=True)
class Cuts:
    """Where each of R rows is cut off: `Sampling.min_p`, `top_k` and `top_p`."""

    min_p: Tensor  # [R] fp32
    top_k: Tensor  # [R] int64, 0: all
    top_p: Tensor  # [R] fp32

    def of(self, rows: Tensor) -> "Cuts":
        """Those of some rows."""
        return Cuts(self.min_p[rows], self.top_k[rows], self.top_p[rows])

    @property
    def limits(self) -> Tensor:
        """Whether min-p or top-k bounds a row, [R]."""
        return (self.min_p > 0) | (self.top_k > 0)


@dataclass(frozen=True)
class Kept:
    """The likeliest tokens of some rows in descending order, of equal ones the lower id first."""

    rows: Tensor  # [R] which rows these are
    index: Tensor  # [R, K] token ids
    weights: Tensor  # [R, K] int64, 0 where cut off


def truncate(scores: Tensor, probs: Tensor, weights: Tensor, cuts: Cuts) -> Iterator[Kept]:
    """The tokens that each row of scores [R, V] keeps, in one piece or two; a row's result is its own alone.

    `probs` [R, V] are the scores' at the temperature and `weights` their whole numbers (`fixed_point`).
    """
    size, rows = scores.shape[-1], torch.arange(len(scores), device=scores.device)
    totals = weights.sum(-1)
    if size <= _LOOKED_AT:
        ordered, index = _descending(scores)
        yield _cut(rows, ordered, index, probs, weights, totals, cuts)[0]
        return
    ordered, index = _likeliest(scores)
    kept, is_whole = _cut(rows, ordered, index, probs, weights, totals, cuts)
    if bool(is_whole.all()):
        yield kept
        return
    yield Kept(rows[is_whole], kept.index[is_whole], kept.weights[is_whole])
    wide = rows[~is_whole]
    ordered, index = _descending(scores[wide])
    yield _cut(wide, ordered, index, probs[wide], weights[wide], totals[wide], cuts.of(wide))[0]


def _likeliest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """The first tokens of the descending order, as a stable sort gives them where no equal ones are left out."""
    scores, index = scores.topk(_LOOKED_AT, dim=-1)
    index, order = index.sort(-1)
    scores, order = _descending(scores.gather(-1, order))
    return scores, index.gather(-1, order)


def _descending(scores: Tensor) -> tuple[Tensor, Tensor]:
    ordered, index = torch.sort(scores, dim=-1, descending=True, stable=True)
    return ordered, index


def _cut(
    rows: Tensor, scores: Tensor, index: Tensor, probs: Tensor, weights: Tensor, totals: Tensor, cuts: Cuts
) -> tuple[Kept, Tensor]:
    """What is kept of the ordered tokens [R, K], and whether nothing that is kept lies beyond them, [R]."""
    probs, weights = probs.gather(-1, index), weights.gather(-1, index)
    last = cuts.top_k.clamp(1, scores.shape[-1]).unsqueeze(-1) - 1
    within_k = (cuts.top_k == 0).unsqueeze(-1) | (scores >= scores.gather(-1, last))
    within = within_k & (probs >= cuts.min_p.unsqueeze(-1) * probs[:, :1])
    weights = weights * within
    limits = cuts.limits
    totals = torch.where(limits, weights.sum(-1), totals)
    kept = within & ~reaches(weights.cumsum(-1) - weights, totals, cuts.top_p)
    kept[:, 0] = True
    final = scores.gather(-1, kept.sum(-1, keepdim=True) - 1)
    is_whole = torch.where(limits, ~within[:, -1], scores[:, -1] < final.squeeze(-1))
    is_whole = (is_whole & (cuts.top_k <= scores.shape[-1])) | (scores[:, -1] == -torch.inf)
    return Kept(rows, index, weights * kept), is_whole
