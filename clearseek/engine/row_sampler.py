"""From scores to tokens for rows that each have settings of their own; a row's result is its own alone, to the bit.

Order, as vLLM's: the constraint's mask, bias, penalties, temperature, min-p, top-k, top-p. Rows that have a
temperature, top-k and top-p and nothing else go through one kernel where there is one, whatever stands beside them.
Shapes: B rows, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from clearseek.engine import fixed_point
from clearseek.engine.penalties import add_bias, add_penalties
from clearseek.engine.row import Row
from clearseek.engine.truncation import Cuts, Kept, truncate
from clearseek.model.kernels import functions as kernels
from clearseek.model.kernels.library import fits
from clearseek.model.log_probs import log_probs_from_logits

_SCORES_AT_ONCE = 1 << 22  # per part of a batch: bounds the memory that a dozen tensors of this size take


@dataclass
class Drawn:
    """One token per row and what is to be known of it.

    For temperature 0 and forced tokens the distribution that is drawn from holds one token, at temperature 1.
    """

    tokens: Tensor  # [B] int64
    log_probs: Tensor  # [B] fp32, the model's at the temperature, before anything was changed: the trainer's
    processed_log_probs: (
        Tensor  # [B] fp32, of the distribution that was drawn from: changed, cut off, renormalised
    )
    kept_mass: Tensor  # [B] fp32, the probability that truncation kept of the changed distribution
    entropies: Tensor  # [B] fp32, of the model's distribution at the temperature, in nats
    forced: Tensor  # [B] bool, put there and not drawn: no gradient

    @classmethod
    def empty(cls, count: int, device: torch.device) -> "Drawn":
        """Room for `count` rows."""
        tokens = torch.zeros(count, dtype=torch.long, device=device)
        log_probs, processed, mass, entropies = torch.zeros(4, count, device=device).unbind()
        return cls(tokens, log_probs, processed, mass, entropies, tokens.bool())

    def put(self, places: Tensor, part: "Drawn") -> None:
        """Set the rows at `places` to those of `part`."""
        for field in fields(self):
            getattr(self, field.name)[places] = getattr(part, field.name)


@torch.no_grad()
def draw(rows: Sequence[Row], logits: Tensor, uniforms: Tensor, dtype: torch.dtype = torch.float32) -> Drawn:
    """A token per row of fp32 logits [B, V] of a model that computes in `dtype`, with uniform numbers [B].

    The numbers are multiples of 2^-24, as `streams.uniforms` gives them. Neither rows nor logits are changed: the
    caller notes the tokens that it takes (`Row.note`). A row whose logits are no numbers gets any token, whose
    log-probability is none either.
    """
    parts = list(_parts(rows, logits.shape[-1], fits(dtype, logits)))
    if len(parts) == 1:
        return _draw_part(parts[0][0], rows, logits, uniforms, dtype)
    drawn = Drawn.empty(len(rows), logits.device)
    for way, places in parts:
        index = torch.tensor(places, device=logits.device)
        chosen = [rows[place] for place in places]
        drawn.put(index, _draw_part(way, chosen, logits[index], uniforms[index], dtype))
    return drawn


@torch.no_grad()
def distribution(rows: Sequence[Row], logits: Tensor) -> Tensor:
    """Log-probabilities [B, V] of what `draw` draws from, -inf for what it can't draw; for exact speculation."""
    changed = _Changed(rows, logits)
    spread = torch.full_like(changed.log_probs, -torch.inf)
    for kept in changed.kept():
        spread[kept.rows.unsqueeze(-1), kept.index] = changed.renormalised(kept)
    return spread


@dataclass(frozen=True)
class _Way:
    """How some rows are drawn together: by the kernel or from the whole distribution."""

    temperature: float
    top_k: int = 0
    top_p: float = 1.0


def _parts(rows: Sequence[Row], size: int, is_fused: bool) -> Iterator[tuple[_Way | None, list[int]]]:
    """Places of rows that are drawn together: plain ones of the same settings, and all others (None).

    Where there are kernels all that suit these are plain.
    """
    groups: dict[_Way | None, list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault(_way_of(row, is_fused), []).append(place)
    most = max(1, _SCORES_AT_ONCE // size)
    for key, places in groups.items():
        for start in range(0, len(places), most):
            yield key, places[start : start + most]


def _way_of(row: Row, is_fused: bool) -> _Way | None:
    sampling = row.sampling
    if is_fused and row.suits_kernel:
        is_drawn = sampling.temperature > 0
        return _Way(sampling.temperature, *((sampling.top_k, sampling.top_p) if is_drawn else ()))
    return _Way(sampling.temperature) if row.is_plain else None


def _draw_part(
    way: _Way | None, rows: Sequence[Row], logits: Tensor, uniforms: Tensor, dtype: torch.dtype
) -> Drawn:
    if way is None:
        return _draw_changed(rows, logits, uniforms)
    if fits(dtype, logits):
        tokens, log_probs, entropies, kept = kernels.draw(
            logits, uniforms, way.temperature, way.top_k, way.top_p
        )
    else:
        every = log_probs_from_logits(logits, way.temperature)
        probs = every.softmax(-1)
        tokens = fixed_point.draw(fixed_point.weights_of(probs), uniforms)
        log_probs, entropies = _at(every, tokens), fixed_point.entropies(probs, every)
        kept = torch.ones_like(log_probs)
    if not way.temperature:
        kept = log_probs.exp()
    processed = log_probs - kept.log() if way.temperature else torch.zeros_like(log_probs)
    return Drawn(tokens, log_probs, processed, kept, entropies, torch.zeros_like(tokens, dtype=torch.bool))


def _draw_changed(rows: Sequence[Row], logits: Tensor, uniforms: Tensor) -> Drawn:
    changed = _Changed(rows, logits)
    drawn = Drawn.empty(len(rows), logits.device)
    for kept in changed.kept():
        place = fixed_point.draw(kept.weights, uniforms[kept.rows])
        drawn.tokens[kept.rows] = _at(kept.index, place)
        drawn.processed_log_probs[kept.rows] = _at(changed.renormalised(kept), place)
        totals = changed.weights[kept.rows].sum(-1)
        drawn.kept_mass[kept.rows] = fixed_point.shares(kept.weights.sum(-1), totals)
    drawn.log_probs = _at(changed.model_log_probs, drawn.tokens)
    drawn.entropies = fixed_point.entropies(changed.model_probs, changed.model_log_probs)
    drawn.forced = torch.tensor([bool(row.forced) for row in rows], device=logits.device)
    return drawn


class _Changed:
    """The distributions [B, V] of rows after mask, bias, penalties and temperature, before anything is cut off."""

    def __init__(self, rows: Sequence[Row], logits: Tensor) -> None:
        self.rows = rows
        temperatures = [row.sampling.temperature or 1.0 for row in rows]
        self.model_log_probs = self.log_probs = _log_probs_at(logits, temperatures)
        self.model_probs = self.probs = self.model_log_probs.softmax(-1)
        self.scores = _changed_scores(rows, logits)
        if self.scores is not logits:
            self.log_probs = _log_probs_at(self.scores, temperatures)
            self.probs = self.log_probs.softmax(-1)
        self.weights = fixed_point.weights_of(self.probs)

    def kept(self) -> Iterator[Kept]:
        """What can be drawn of each row; every row is in one piece."""
        places: dict[str, list[int]] = {"decided": [], "cut": [], "whole": []}
        for place, row in enumerate(self.rows):
            is_decided = bool(row.forced) or row.sampling.temperature == 0
            places["decided" if is_decided else "cut" if _is_cut(row) else "whole"].append(place)
        for kind, kept in (("decided", self._decided), ("cut", self._cut), ("whole", self._whole)):
            if places[kind]:
                yield from kept(places[kind], torch.tensor(places[kind], device=self.scores.device))

    def renormalised(self, kept: Kept) -> Tensor:
        """Log-probabilities [R, K] of what was kept; -inf for what was cut off."""
        log_probs = self.log_probs[kept.rows].gather(-1, kept.index)
        return log_probs.masked_fill(kept.weights == 0, -torch.inf).log_softmax(-1)

    def _decided(self, places: list[int], index: Tensor) -> Iterator[Kept]:
        """The likeliest token, or the one that is forced."""
        tokens = self.scores[index].argmax(-1).tolist()
        chosen = [
            self.rows[at].forced[0] if self.rows[at].forced else token
            for at, token in zip(places, tokens, strict=True)
        ]
        only = torch.tensor(chosen, device=index.device).unsqueeze(-1)
        yield Kept(index, only, self.weights[index].gather(-1, only).clamp(min=1))

    def _cut(self, places: list[int], index: Tensor) -> Iterator[Kept]:
        settings = [self.rows[place].sampling for place in places]
        device = index.device
        cuts = Cuts(
            torch.tensor([s.min_p for s in settings], device=device),
            torch.tensor([s.top_k for s in settings], device=device),
            torch.tensor([s.top_p for s in settings], device=device),
        )
        for kept in truncate(self.scores[index], self.probs[index], self.weights[index], cuts):
            yield Kept(index[kept.rows], kept.index, kept.weights)

    def _whole(self, places: list[int], index: Tensor) -> Iterator[Kept]:
        every = torch.arange(self.scores.shape[-1], device=index.device).expand(len(places), -1)
        yield Kept(index, every, self.weights[index])


def _changed_scores(rows: Sequence[Row], logits: Tensor) -> Tensor:
    """Scores [B, V] after mask, bias and penalties; `logits` themselves where no row has any."""
    masks = [
        (place, mask)
        for place, row in enumerate(rows)
        if not row.forced and (mask := row.allowed()) is not None
    ]
    biased = [place for place, row in enumerate(rows) if row.sampling.logit_bias]
    seen = [(place, row.seen) for place, row in enumerate(rows) if row.seen is not None]
    if not (masks or biased or seen):
        return logits
    scores = logits.float().clone()
    if masks:
        allowed = torch.from_numpy(np.stack([mask for _, mask in masks])).to(logits.device)
        places = torch.tensor([place for place, _ in masks], device=logits.device)
        scores[places] = scores[places].masked_fill(~allowed, -torch.inf)
    add_bias(scores, biased, [rows[place].sampling.logit_bias for place in biased])
    add_penalties(
        scores,
        [place for place, _ in seen],
        [rows[place].sampling for place, _ in seen],
        [tokens for _, tokens in seen],
    )
    return scores


def _log_probs_at(logits: Tensor, temperatures: Sequence[float]) -> Tensor:
    """Log-probabilities [B, V] of rows at their temperatures, by the one function for each temperature there is."""
    if len(set(temperatures)) == 1:
        return log_probs_from_logits(logits, temperatures[0])
    log_probs = torch.empty_like(logits, dtype=torch.float32)
    for temperature in set(temperatures):
        places = torch.tensor(
            [i for i, own in enumerate(temperatures) if own == temperature], device=logits.device
        )
        log_probs[places] = log_probs_from_logits(logits[places], temperature)
    return log_probs


def _is_cut(row: Row) -> bool:
    sampling = row.sampling
    return (sampling.min_p, sampling.top_k, sampling.top_p) != (0, 0, 1)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """The value of each row [B, K] at its place [B]."""
    return values.gather(-1, places.unsqueeze(-1)).squeeze(-1)
