"""What turns scores into log-probabilities: the sampler and the trainer both call it.

On a CPU with kernels both use the same pass over the vocabulary (`kernels/head.cpp`); elsewhere both use these.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from clearseek.model.kernels import products as kernels
from clearseek.model.kernels.library import fits


def log_probs_from_logits(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [..., V] of logits [..., V] in fp32 (or wider) at a temperature above 0."""
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return torch.log_softmax(wide if temperature == 1 else wide / temperature, dim=-1)


def token_log_probs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each target token: logits [..., V], targets [...] → [...], fp32."""
    return log_probs_from_logits(logits, temperature).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def head_logits(states: Tensor, weight: Tensor) -> Tensor:
    """Scores [..., V] in fp32 of states [..., C] and the head's weight [V, C]: bf16 would round 20 to 0.1.

    bf16 states meet a weight rounded to bf16, with fp32 sums; so do those of `target_log_probs`.
    """
    if states.dtype == torch.bfloat16:
        if not torch.is_grad_enabled() and fits(states.dtype, states, states.shape[-1]):
            flat = states.reshape(-1, states.shape[-1])
            scores = kernels.head_scores(flat, kernels.pack(weight), len(weight))
            return scores.unflatten(0, states.shape[:-1]) if states.ndim > 1 else scores[0]
        weight = weight.bfloat16()
    wide = torch.promote_types(states.dtype, torch.float32)
    return F.linear(states.to(wide), weight.to(wide))


def target_log_probs(states: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability [N] of each target [N] given states [N, C] and the head's weight [V, C]."""
    if fits(states.dtype, states, states.shape[-1]):
        log_probs: Tensor = kernels.TargetLogProbs.apply(states, weight, targets, temperature)
        return log_probs
    return token_log_probs(head_logits(states, weight), targets, temperature)
