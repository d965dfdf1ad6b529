"""The small parts every layer is made of: linear maps in the compute dtype, RMSNorm, SwiGLU.

Parameters keep their own dtype (fp32 while training); the activations' dtype decides what is computed in.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearseek.model.kernels import functions as kernels
from clearseek.model.kernels import products
from clearseek.model.kernels.library import fits

MANY_ROWS = 32  # below, laying a weight out for the kernels costs more than they save


def learns_in(int8: bool) -> bool:
    """Whether to multiply in int8 now, in a layer that does so while it learns."""
    return int8 and torch.is_grad_enabled()


class Linear(nn.Module):
    """`x @ weight.T`, plus a bias where there is one, in the dtype of `x`; `weight` is [out, in].

    `int8`, as in `SwiGLU` and `experts.MixtureOfExperts`: while learning multiply in int8 where kernels can.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.int8 = False

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., in] to [..., out]."""
        product = self.product(x)
        return product if self.bias is None else product + self.bias.to(x.dtype)

    def product(self, x: Tensor) -> Tensor:
        """As `forward`, without the bias."""
        if x.numel() >= MANY_ROWS * x.shape[-1] and fits(x.dtype, x, *self.weight.shape):
            mapped: Tensor = products.Linear.apply(x, self.weight, learns_in(self.int8))
            return mapped
        return F.linear(x, self.weight.to(x.dtype))


class RMSNorm(nn.Module):
    """Root-mean-square norm (arXiv:1910.07467), computed in fp32 whatever the activations are."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Normalise the last dimension and hand it on in `dtype` (default: that of `x`)."""
        dtype = dtype or x.dtype
        if x.dtype in (dtype, torch.float32) and fits(dtype, x, x.shape[-1]):
            normed: Tensor = kernels.RmsNorm.apply(x, self.weight.float(), self.eps, dtype)
            return normed
        wide = x.float()
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return (wide.to(dtype) * self.weight.to(dtype)).to(dtype)

    def after_adding(self, stream: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """The stream plus delta, [..., size] in the stream's dtype, and that sum normalised in delta's."""
        if stream.dtype == torch.float32 and fits(delta.dtype, stream, stream.shape[-1]):
            total, normed = kernels.AddRmsNorm.apply(stream, delta, self.weight.float(), self.eps)
            return total, normed
        total = stream + delta
        return total, self(total, delta.dtype)


def add_to_stream(stream: Tensor, delta: Tensor) -> Tensor:
    """The stream plus delta, [..., size] in the stream's dtype."""
    if stream.dtype == torch.float32 and fits(delta.dtype, stream, stream.shape[-1]):
        total: Tensor = kernels.AddToStream.apply(stream, delta)
        return total
    return stream + delta


def swiglu(gate_up: Tensor, gates: Tensor | None = None, num_experts: int = 1) -> Tensor:
    """`silu(gate) * up * gates` of gate_up [..., E · 2 · I], gates [..., E] (1 where None): [..., E · I]."""
    if fits(gate_up.dtype, gate_up, gate_up.shape[-1] // (2 * num_experts)):
        hidden: Tensor = kernels.SwiGlu.apply(gate_up, gates, num_experts)
        return hidden
    gate, up = gate_up.unflatten(-1, (num_experts, -1)).chunk(2, dim=-1)
    hidden = F.silu(gate) * up
    return (hidden if gates is None else hidden * gates.unsqueeze(-1).to(hidden.dtype)).flatten(-2)


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) * up(x))` (arXiv:2002.05202) with gate and up in one product."""

    def __init__(self, hidden_size: int, intermediate_size: int, bias: bool = False) -> None:
        super().__init__()
        self.gate_up = Linear(hidden_size, 2 * intermediate_size, bias)
        self.down = Linear(intermediate_size, hidden_size, bias)
        self.has_bias, self.int8 = bias, False

    def forward(self, x: Tensor) -> Tensor:
        """Map [..., hidden] to [..., hidden]."""
        weights = self.gate_up.weight, self.down.weight
        is_large = x.numel() >= MANY_ROWS * x.shape[-1] and not self.has_bias
        if is_large and fits(x.dtype, x, *weights[1].shape):
            stacked = (weight.unsqueeze(0) for weight in weights)
            rest = None, None, 1, learns_in(self.int8)
            return products.FeedForward.apply(x.flatten(0, -2), *stacked, *rest).view_as(x)
        return self.down(swiglu(self.gate_up(x)))
