"""The one function that turns logits into log-probabilities: the sampler and the trainer both call it."""

import torch
from torch import Tensor


def log_probs_from_logits(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [..., V] of logits [..., V] in fp32 at a temperature above 0."""
    return torch.log_softmax(logits.float() / temperature, dim=-1)


def token_log_probs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each target token: logits [..., V], targets [...] → [...], fp32."""
    return log_probs_from_logits(logits, temperature).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
