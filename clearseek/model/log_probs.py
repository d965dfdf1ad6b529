"""The one function that turns logits into log-probabilities: the sampler and the trainer both call it."""

from typing import Any

import torch
from torch import Tensor


def log_probs_from_logits(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probabilities [..., V] of logits [..., V] in fp32 at a temperature above 0."""
    scaled = _scaled(logits, temperature)
    return scaled - scaled.logsumexp(-1, keepdim=True)


def token_log_probs(logits: Tensor, targets: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each target token: logits [..., V], targets [...] → [...], fp32."""
    log_probs: Tensor = _TokenLogProbs.apply(_scaled(logits, temperature), targets)
    return log_probs


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return wide if temperature == 1 else wide / temperature


class _TokenLogProbs(torch.autograd.Function):
    """What `log_probs_from_logits` gives at the targets, without the whole table in between.

    The gradient of log p(target) is 1 at the target minus the probabilities: one pass instead of four.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        normaliser = logits.logsumexp(-1)
        ctx.save_for_backward(logits, targets, normaliser)
        return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - normaliser

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        logits, targets, normaliser = ctx.saved_tensors
        gradient = gradients[0].unsqueeze(-1)
        of_logits = (logits - normaliser.unsqueeze(-1)).exp_().mul_(-gradient)
        return of_logits.scatter_add_(-1, targets.unsqueeze(-1), gradient), None


class WideProduct(torch.autograd.Function):
    """`x @ weight.T` in fp32 forward, its two gradients in a cheaper dtype: scores need the bits, gradients don't."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        """Map x [N, in] and weight [out, in] to [N, out] in fp32."""
        ctx.save_for_backward(x, weight)
        ctx.dtype = dtype
        return x.float() @ weight.float().t()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """Gradients of x and weight, computed in `dtype`."""
        x, weight = ctx.saved_tensors
        gradient = gradients[0].to(ctx.dtype)
        of_x = gradient @ weight.to(ctx.dtype)
        of_weight = gradient.t() @ x.to(ctx.dtype)
        return of_x.to(x.dtype), of_weight.to(weight.dtype), None
