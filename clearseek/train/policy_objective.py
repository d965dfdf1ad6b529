"""What reinforcement learning minimises on one micro-batch, and what it measures on the way.

Apart from the trainer so that it can be checked as a pure function: masked positions may hold anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from clearseek.config.recipe import RlStage
from clearseek.train.parallel import all_max, all_sum
from clearseek.train.policy_losses import POLICY_LOSSES, PolicyTerms, kl_to_reference

_PER_TOKEN = ("advantages", "token_weights", "sampled_log_probs", "old_log_probs", "reference_log_probs")


@dataclass
class Measures:
    """Sums over the counted tokens of one batch, once per update; others hold zeros."""

    mismatch: float = 0.0  # the largest
    differing: int = 0  # tokens of which sampler and trainer don't say the same bits
    difference: float = 0.0
    kl: float = 0.0
    clipped: int = 0

    @torch.no_grad()
    def add(self, terms: PolicyTerms, sampled: Tensor) -> None:
        """Compare the policy that sampled with the sampler, and count ratios outside the clip."""
        difference = (terms.old_log_probs - sampled).abs()
        self.mismatch = max(self.mismatch, float(difference.max()))
        self.difference += float(difference.sum())
        self.differing += int(difference.count_nonzero())
        outside = (terms.ratio < 1 - terms.clip_low) | (terms.ratio > 1 + terms.clip_high)
        self.clipped += int((outside & terms.counted).sum())

    def over_ranks(self) -> "Measures":
        """The same of all ranks' tokens."""
        what = "the other ranks' measures"
        mine = [self.differing, self.difference, self.kl, self.clipped]
        differing, difference, kl, clipped = all_sum(what, torch.tensor(mine, dtype=torch.float64)).tolist()
        return Measures(all_max(what, self.mismatch), int(differing), difference, kl, int(clipped))

    def as_numbers(self, num_tokens: int) -> dict[str, float]:
        """As the ledger names them."""
        count = max(num_tokens, 1)
        return {
            "kl": self.kl / count,
            "clip_fraction": self.clipped / count,
            "mismatch": self.mismatch,
            "mismatch_mean": self.difference / count,
            "mismatch_tokens": self.differing,
        }


def policy_objective(
    stage: RlStage, log_probs: Tensor, extras: Mapping[str, Tensor], measures: Measures
) -> Tensor:
    """Policy loss plus weighted KL, summed over the counted tokens of rows [B, T] with their weights.

    `extras` are those of `PolicyBatch`, with `old_log_probs` where several updates share a batch and
    `reference_log_probs` where there is a KL term.
    """
    counted = extras["token_weights"] > 0
    # cleared before anything is computed: what 0 multiplies afterwards may still be NaN
    log_probs = log_probs.masked_fill(~counted, 0.0)
    given = {name: extras[name].masked_fill(~counted, 0.0) for name in _PER_TOKEN if name in extras}
    old = given.get("old_log_probs", log_probs.detach())
    terms = PolicyTerms(
        log_probs,
        old,
        given["advantages"],
        counted,
        extras["sequences"],
        stage.clip_low,
        stage.clip_high,
    )
    loss = POLICY_LOSSES[stage.policy_loss](terms)
    measures.add(terms, given["sampled_log_probs"])
    if stage.kl_weight:
        divergence = kl_to_reference(log_probs, given["reference_log_probs"])
        measures.kl += float(divergence.detach().sum())
        loss = loss + stage.kl_weight * divergence
    return (loss * given["token_weights"]).sum()
