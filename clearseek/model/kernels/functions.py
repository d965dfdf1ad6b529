"""The kernels as differentiable functions on tensors; each says which plain form it stands for.

Shapes: B rows, T tokens, N = B · T, H heads, D head size, E experts, I hidden units, V vocabulary. Sizes that a
kernel runs over are multiples of 16 (`library.fits` has been asked).
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clearseek.model.kernels.library import library

_Gradients = tuple[Tensor | None, ...]
_BF16, _FP32 = torch.bfloat16, torch.float32


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel with as many threads as torch uses. Tensors go as addresses: their callers keep them alive."""
    getattr(library(), name)(*map(_as_c, arguments), ctypes.c_int64(torch.get_num_threads()))


def _as_c(value: Tensor | int | float | None) -> Any:
    if isinstance(value, int):
        return ctypes.c_int64(value)
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(None if value is None else value.data_ptr())


def _kinds(given: torch.dtype, wanted: torch.dtype) -> int:
    return (given == _FP32) + 2 * (wanted == _FP32)


def dense_rows(x: Tensor) -> Tensor:
    """`x` as [N, size] whose rows are dense; they may lie apart, as those of a slice do."""
    flat = x.reshape(-1, x.shape[-1])
    is_dense = flat.stride(-1) == 1 and not flat.stride(0) % 2
    return flat if is_dense else flat.contiguous()


def _tokens(x: Tensor) -> Tensor:
    """`x` [B, T, H, D] as the attention's kernel reads it: dense heads, tokens evenly apart over all rows."""
    _, length, _, size = x.shape
    is_dense = x.stride(3) == 1 or size == 1
    return x if is_dense and x.stride(0) == length * x.stride(1) and x.stride(1) % 2 == 0 else x.contiguous()


class RmsNorm(torch.autograd.Function):
    """`layers.RMSNorm`: x [..., C] in fp32 or bf16 → [..., C] in `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        """One pass; the rows' factors are kept for the way back."""
        flat = dense_rows(x)
        y, scale = x.new_empty(x.shape, dtype=dtype), x.new_empty(len(flat), dtype=_FP32)
        _norm_forward(flat, None, None, weight, y, scale, eps)
        ctx.save_for_backward(flat, weight, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of x and weight."""
        flat, weight, scale = ctx.saved_tensors
        return (*_norm_backward(flat, weight, scale, gradients[0].contiguous(), None, None), None, None)


def _norm_forward(
    flat: Tensor,
    delta: Tensor | None,
    total: Tensor | None,
    weight: Tensor,
    y: Tensor,
    scale: Tensor,
    eps: float,
) -> None:
    kinds, source = _kinds(flat.dtype, y.dtype), (flat, flat.stride(0))
    call("rms_norm_forward", kinds, *source, delta, total, weight, y, scale, *flat.shape, float(eps))


def _norm_backward(
    flat: Tensor, weight: Tensor, scale: Tensor, grad: Tensor, past: Tensor | None, delta: Tensor | None
) -> tuple[Tensor, Tensor]:
    dx, dweight = torch.empty_like(grad, dtype=flat.dtype), torch.empty_like(weight)
    kinds, source = _kinds(flat.dtype, grad.dtype), (flat, flat.stride(0))
    call("rms_norm_backward", kinds, *source, weight, scale, grad, past, dx, delta, dweight, *flat.shape)
    return dx, dweight


class AddRmsNorm(torch.autograd.Function):
    """`total = stream + delta; total, norm(total)`: the stream in fp32, delta and the normed rows in bf16."""

    @staticmethod
    def forward(ctx: Any, stream: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """One pass over both."""
        assert stream.shape == delta.shape
        stream, delta = stream.contiguous(), delta.contiguous()
        flat, total, y = dense_rows(stream), torch.empty_like(stream), torch.empty_like(delta)
        scale = stream.new_empty(len(flat))
        _norm_forward(flat, delta, total, weight, y, scale, eps)
        ctx.save_for_backward(total, weight, scale)
        ctx.set_materialize_grads(False)
        return total, y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of stream, delta and weight; what flows past the norm is added on the way."""
        total, weight, scale = ctx.saved_tensors
        past, grad = gradients
        if grad is None:
            return past, None if past is None else past.bfloat16(), None, None
        ddelta = torch.empty_like(total, dtype=_BF16)
        past = None if past is None else past.contiguous()
        dstream, dweight = _norm_backward(dense_rows(total), weight, scale, grad.contiguous(), past, ddelta)
        return dstream, ddelta, dweight, None


class AddToStream(torch.autograd.Function):
    """`stream + delta`, fp32 and bf16; [..., C]."""

    @staticmethod
    def forward(ctx: Any, stream: Tensor, delta: Tensor) -> Tensor:
        """One pass without a widened copy of delta."""
        assert stream.shape == delta.shape
        stream, delta = stream.contiguous(), delta.contiguous()
        total = torch.empty_like(stream)
        call("add_to_stream", stream, delta, total, stream.numel())
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """The gradient itself, and it in bf16."""
        return gradients[0], gradients[0].bfloat16()


class Rotate(torch.autograd.Function):
    """Norm of every head (where there is a weight), then `rotary.rotate_halves` or `rotate_pairs` of its end.

    x [..., T, H, D] in bf16, its heads and their numbers dense; cos and sin [positions, rotary / 2] in fp32, row n
    taking line n modulo positions.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, eps: float, cos: Tensor, sin: Tensor, pairs: bool
    ) -> Tensor:
        """One pass; dense [..., T, H, D]."""
        heads, size = x.shape[-2:]
        flat, y = dense_rows(x.flatten(-2)), x.new_empty(x.shape)
        cos, sin = cos.float().contiguous(), sin.float().contiguous()
        scale = cos.new_empty(len(flat) * heads if weight is not None else 0)
        source, ctx.sizes = (flat, flat.stride(0)), (len(flat), heads, size)
        ctx.turns = len(cos), 2 * cos.shape[1], int(pairs)
        call("rotate_forward", *source, weight, float(eps), cos, sin, *ctx.turns, y, scale, *ctx.sizes)
        ctx.save_for_backward(flat, weight, cos, sin, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of x and weight."""
        flat, weight, cos, sin, scale = ctx.saved_tensors
        grad, source = gradients[0].contiguous(), (flat, flat.stride(0))
        dx, dweight = torch.empty_like(grad), None if weight is None else torch.empty_like(weight)
        given = *source, weight, cos, sin, *ctx.turns, scale, grad
        call("rotate_backward", *given, dx, dweight, *ctx.sizes)
        return dx, dweight, None, None, None, None


class SwiGlu(torch.autograd.Function):
    """`silu(gate) * up * gates`: gate_up [..., E · 2 · I] in bf16, gates [..., E] in fp32 or None → [..., E · I]."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, gates: Tensor | None, experts: int) -> Tensor:
        """One pass."""
        gate_up = gate_up.contiguous()
        gates = None if gates is None else gates.float().contiguous()
        size = gate_up.shape[-1] // (2 * experts)
        y = gate_up.new_empty(*gate_up.shape[:-1], experts * size)
        ctx.sizes = (y.numel() // (experts * size), experts, size)
        call("swiglu_forward", gate_up, gates, y, *ctx.sizes)
        ctx.save_for_backward(gate_up, gates)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of gate_up and gates."""
        gate_up, gates = ctx.saved_tensors
        dgate_up = torch.empty_like(gate_up)
        dgates = None if gates is None else torch.empty_like(gates)
        call("swiglu_backward", gate_up, gates, gradients[0].contiguous(), dgate_up, dgates, *ctx.sizes)
        return dgate_up, dgates, None


class Route(torch.autograd.Function):
    """`experts.Router`: scores [..., E] in fp32 → affinity, chosen (bool) and gates, [..., E] each.

    `routing` as `experts.routing_of` gives it; bias [E] in fp32 or None.
    """

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, bias: Tensor | None, routing: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass; E up to `library.MAX_EXPERTS`."""
        scores = scores.contiguous()
        bias = None if bias is None else bias.float().contiguous()
        affinity, gates = torch.empty_like(scores), torch.empty_like(scores)
        chosen = torch.empty_like(scores, dtype=torch.bool)
        ctx.routing, ctx.rows = routing, scores.numel() // scores.shape[-1]
        call("route_forward", routing, scores, bias, affinity, chosen, gates, ctx.rows)
        ctx.mark_non_differentiable(chosen)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(affinity, chosen, gates)
        return affinity, chosen, gates

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> _Gradients:
        """The gradient of the scores."""
        affinity, chosen, gates = ctx.saved_tensors
        daffinity = None if gradients[0] is None else gradients[0].contiguous()
        dgates = torch.zeros_like(gates) if gradients[2] is None else gradients[2].contiguous()
        dscores = torch.empty_like(affinity)
        call("route_backward", ctx.routing, affinity, chosen, gates, daffinity, dgates, dscores, ctx.rows)
        return dscores, None, None


class Attention(torch.autograd.Function):
    """`attention.attend` over packed rows: token t sees tokens starts[t] … t of its row, and its prefix.

    query [B, T, H, D], key [B, T, Hk, Dk], shared [B, T, D − Dk] or None, value [B, T, Hk, Dv], all bf16, starts
    [B, T] int32 → [B, T, H, Dv]. A key is its own part and behind it the part that all heads share. `key` and
    `value` may be slices; their last dimension is dense. `prefix` [2, B, T] int32 or None: token t also sees
    tokens prefix[0] … prefix[1] − 1, which lie before starts[t]; along a row nothing of these falls.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        shared: Tensor | None,
        value: Tensor,
        starts: Tensor,
        prefix: Tensor | None,
        scale: float,
    ) -> Tensor:
        """Online in blocks of queries; only the logarithms of the softmax's sums are kept."""
        rows, length, heads, _ = query.shape
        query, key, value, starts = query.contiguous(), _tokens(key), _tokens(value), starts.contiguous()
        shared = None if shared is None else _tokens(shared.unsqueeze(2)).squeeze(2)
        prefix = None if prefix is None else prefix.contiguous()
        shared_size = 0 if shared is None else shared.shape[-1]
        sizes = torch.tensor([rows, length, heads, *key.shape[2:], shared_size, value.shape[3]], device="cpu")
        out = query.new_empty(rows, length, heads, value.shape[3])
        log_sum = query.new_empty(rows, heads, length, dtype=_FP32)
        places = _places(query, key, shared, value)
        call("attention_forward", sizes, float(scale), *places, starts, prefix, out, log_sum)
        ctx.save_for_backward(query, key, shared, value, starts, prefix, out, log_sum, sizes)
        ctx.scale = float(scale)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of query, key, shared and value, from recomputed scores."""
        query, key, shared, value, starts, prefix, out, log_sum, sizes = ctx.saved_tensors
        dquery, dkey, dvalue = (
            query.new_empty(query.shape),
            key.new_empty(key.shape),
            value.new_empty(value.shape),
        )
        dshared = None if shared is None else shared.new_empty(shared.shape)
        seen = starts, prefix
        given = *_places(query, key, shared, value), *seen, out, log_sum, gradients[0].contiguous()
        found = dquery, *_place(dkey), dshared, *_place(dvalue)
        call("attention_backward", sizes, ctx.scale, *given, *found)
        return dquery, dkey, dshared, dvalue, None, None, None


def _place(x: Tensor) -> tuple[Tensor, int, int]:
    """x [B, T, H, D], and how far apart its tokens and heads are."""
    return x, x.stride(1), x.stride(2)


def _places(query: Tensor, key: Tensor, shared: Tensor | None, value: Tensor) -> tuple[Any, ...]:
    common = (None, 0) if shared is None else (shared, shared.stride(1))
    return query, query.stride(1), *_place(key), *common, *_place(value)


def draw(
    scores: Tensor, uniforms: Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One token per row of scores [B, V] in fp32 by inverse sampling: tokens, log-probabilities, entropies, [B].

    Temperature 0 takes the likeliest, and reports the rest as at 1. With `top_k` or `top_p` the likeliest alone are
    drawn from; what is reported is of all, and last which share of these was kept, [B].
    """
    scores, uniforms = dense_rows(scores.float()), uniforms.float().contiguous()
    rows, size = scores.shape
    tokens, scratch = scores.new_empty(rows, dtype=torch.int64), scores.new_empty(rows, size)
    log_probs, entropies, kept = scores.new_empty(3, rows).unbind()
    given = (
        scores,
        scores.stride(0),
        uniforms,
        float(1 / temperature if temperature else 0),
        top_k,
        float(top_p),
    )
    call("draw", *given, tokens, log_probs, entropies, kept, scratch, rows, size)
    return tokens, log_probs, entropies, kept
