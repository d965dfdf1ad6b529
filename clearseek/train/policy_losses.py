"""Policy losses: pure functions of log-probabilities, giving a loss per token; and how tokens are weighted.

Shapes: B rows, T tokens. `sequences` [B, T] numbers the completion that each token belongs to, from 0.
What every function returns is per token; the caller multiplies by weights that sum over the global batch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class PolicyTerms:
    """What a policy loss may look at, each [B, T]."""

    log_probs: Tensor  # of the policy that is trained
    old_log_probs: Tensor  # of the policy that sampled, as the trainer computes it
    advantages: Tensor
    counted: Tensor  # bool: tokens that a completion holds
    sequences: Tensor  # int64
    clip_low: float
    clip_high: float

    @property
    def ratio(self) -> Tensor:
        """How much likelier each token has become since it was sampled."""
        return (self.log_probs - self.old_log_probs).exp()


PolicyLoss = Callable[[PolicyTerms], Tensor]


def reinforce(terms: PolicyTerms) -> Tensor:
    """Plain policy gradient on fresh samples (Williams 1992); with centred advantages, unclipped GRPO."""
    return -terms.advantages * terms.log_probs


def clip(terms: PolicyTerms) -> Tensor:
    """PPO's clipped ratio (arXiv:1707.06347); a wider upper bound is DAPO's clip-higher (2503.14476)."""
    bounded = terms.ratio.clamp(1 - terms.clip_low, 1 + terms.clip_high)
    return -torch.minimum(terms.ratio * terms.advantages, bounded * terms.advantages)


def cispo(terms: PolicyTerms) -> Tensor:
    """REINFORCE weighted by the clipped ratio, which carries no gradient (arXiv:2506.13585, eq. 4)."""
    weight = terms.ratio.detach().clamp(1 - terms.clip_low, 1 + terms.clip_high)
    return -weight * terms.advantages * terms.log_probs


def gspo(terms: PolicyTerms) -> Tensor:
    """Clip the geometric mean of a completion's ratios, one for all tokens (arXiv:2507.18071, eq. 5-7)."""
    difference = (terms.log_probs - terms.old_log_probs) * terms.counted
    mean = sequence_mean(difference, terms.counted, terms.sequences).exp()
    bounded = mean.clamp(1 - terms.clip_low, 1 + terms.clip_high)
    return -torch.minimum(mean * terms.advantages, bounded * terms.advantages)


def sequence_mean(values: Tensor, counted: Tensor, sequences: Tensor) -> Tensor:
    """The mean of each completion's counted values, at each of its tokens."""
    index, size = sequences.flatten(), int(sequences.max()) + 1
    zeros = values.new_zeros(size)
    sums = zeros.index_add(0, index, (values * counted).flatten())
    counts = zeros.index_add(0, index, counted.to(values.dtype).flatten())
    return (sums / counts.clamp(min=1))[index].view_as(values)


def kl_to_reference(log_probs: Tensor, reference: Tensor) -> Tensor:
    """The estimator of KL(policy ‖ reference) per token that is never below 0 (k3; 2402.03300, eq. 4)."""
    difference = reference - log_probs
    return difference.exp() - difference - 1


def token_weight(aggregation: str, length: int, num_tokens: int, num_sequences: int, longest: int) -> float:
    """What a token of a completion of `length` counts, given the totals of the global batch.

    `token_mean` (DAPO): every token the same. `sequence_mean` (GRPO): every completion the same.
    `constant` (Dr. GRPO): tokens the same, divided by the budget instead of by what was written.
    """
    if aggregation == "token_mean":
        return 1.0 / max(num_tokens, 1)
    if aggregation == "sequence_mean":
        return 1.0 / (max(num_sequences, 1) * length)
    return 1.0 / (max(num_sequences, 1) * longest)


POLICY_LOSSES: dict[str, PolicyLoss] = {"reinforce": reinforce, "clip": clip, "cispo": cispo, "gspo": gspo}
