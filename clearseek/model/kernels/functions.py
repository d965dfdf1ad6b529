"""The kernels as differentiable functions on tensors; each says which plain form it stands for.

Shapes: B rows, T tokens, N = B · T, H heads, D head size, E experts, I hidden units, V vocabulary. Sizes that a
kernel runs over are multiples of 16 (`library.fits` has been asked).
"""

import ctypes
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clearseek.model.kernels.library import LANES, library

_Gradients = tuple[Tensor | None, ...]
_BF16, _FP32 = torch.bfloat16, torch.float32


def call(name: str, *arguments: Tensor | int | float | None) -> None:
    """Call a kernel with as many threads as torch uses. Tensors go as addresses: their callers keep them alive."""
    getattr(library(), name)(*map(_as_c, arguments), ctypes.c_int64(torch.get_num_threads()))


def _as_c(value: Tensor | int | float | None) -> Any:
    if value is None or isinstance(value, Tensor):
        return ctypes.c_void_p(None if value is None else value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else ctypes.c_int64(value)


def _kinds(given: torch.dtype, wanted: torch.dtype) -> int:
    return (given == _FP32) + 2 * (wanted == _FP32)


def _rows(x: Tensor) -> Tensor:
    """`x` as [N, size] whose rows are dense; they may lie apart, as those of a slice do."""
    flat = x.flatten(0, -2)
    return flat if flat.stride(-1) == 1 else flat.contiguous()


class RmsNorm(torch.autograd.Function):
    """`layers.RMSNorm`: x [..., C] in fp32 or bf16 → [..., C] in `dtype`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        """One pass; the rows' factors are kept for the way back."""
        flat = _rows(x)
        count, size = flat.shape
        y, scale = torch.empty(x.shape, dtype=dtype), torch.empty(count)
        call(
            "rms_norm_forward",
            _kinds(x.dtype, dtype),
            flat,
            flat.stride(0),
            None,
            None,
            weight,
            y,
            scale,
            count,
            size,
            float(eps),
        )
        ctx.save_for_backward(flat, weight, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of x and weight."""
        flat, weight, scale = ctx.saved_tensors
        return (*_norm_backward(flat, weight, scale, gradients[0].contiguous(), None, None), None, None)


def _norm_backward(
    flat: Tensor, weight: Tensor, scale: Tensor, grad: Tensor, past: Tensor | None, delta: Tensor | None
) -> tuple[Tensor, Tensor]:
    dx, dweight = torch.empty(grad.shape, dtype=flat.dtype), torch.empty_like(weight)
    call(
        "rms_norm_backward",
        _kinds(flat.dtype, grad.dtype),
        flat,
        flat.stride(0),
        weight,
        scale,
        grad,
        past,
        dx,
        delta,
        dweight,
        flat.shape[0],
        flat.shape[1],
    )
    return dx, dweight


class AddRmsNorm(torch.autograd.Function):
    """`total = stream + delta; total, norm(total)`: the stream in fp32, delta and the normed rows in bf16."""

    @staticmethod
    def forward(ctx: Any, stream: Tensor, delta: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """One pass over both."""
        stream, delta = stream.contiguous(), delta.contiguous()
        count, size = stream.numel() // stream.shape[-1], stream.shape[-1]
        total, y = torch.empty_like(stream), torch.empty(stream.shape, dtype=_BF16)
        scale = torch.empty(count)
        call(
            "rms_norm_forward",
            _kinds(_FP32, _BF16),
            stream,
            size,
            delta,
            total,
            weight,
            y,
            scale,
            count,
            size,
            float(eps),
        )
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
        ddelta = torch.empty(total.shape, dtype=_BF16)
        past = None if past is None else past.contiguous()
        flat = total.view(-1, total.shape[-1])
        dstream, dweight = _norm_backward(flat, weight, scale, grad.contiguous(), past, ddelta)
        return dstream, ddelta, dweight, None


class AddToStream(torch.autograd.Function):
    """`stream + delta`, fp32 and bf16; [..., C]."""

    @staticmethod
    def forward(ctx: Any, stream: Tensor, delta: Tensor) -> Tensor:
        """One pass without a widened copy of delta."""
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
        flat = _rows(x.flatten(-2))
        cos, sin = cos.contiguous(), sin.contiguous()
        y = torch.empty(x.shape, dtype=_BF16)
        scale = torch.empty(flat.shape[0] * heads if weight is not None else 0)
        positions, half = cos.shape
        ctx.common = (positions, 2 * half, int(pairs))
        ctx.sizes = (flat.shape[0], heads, size)
        call(
            "rotate_forward",
            flat,
            flat.stride(0),
            weight,
            float(eps),
            cos,
            sin,
            *ctx.common,
            y,
            scale,
            *ctx.sizes,
        )
        ctx.save_for_backward(flat, weight, cos, sin, scale)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of x and weight."""
        flat, weight, cos, sin, scale = ctx.saved_tensors
        grad = gradients[0].contiguous()
        dx = torch.empty(grad.shape, dtype=_BF16)
        dweight = None if weight is None else torch.empty_like(weight)
        call(
            "rotate_backward",
            flat,
            flat.stride(0),
            weight,
            cos,
            sin,
            *ctx.common,
            scale,
            grad,
            dx,
            dweight,
            *ctx.sizes,
        )
        return dx, dweight, None, None, None, None


class SwiGlu(torch.autograd.Function):
    """`silu(gate) * up * gates`: gate_up [..., E · 2 · I] in bf16, gates [..., E] in fp32 or None → [..., E · I]."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor, gates: Tensor | None, experts: int) -> Tensor:
        """One pass."""
        gate_up = gate_up.contiguous()
        gates = None if gates is None else gates.contiguous()
        size = gate_up.shape[-1] // (2 * experts)
        y = torch.empty((*gate_up.shape[:-1], experts * size), dtype=_BF16)
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
    """`experts.Router` without groups: scores [..., E] in fp32 → affinity, chosen (bool) and gates, [..., E] each."""

    @staticmethod
    def forward(
        ctx: Any, scores: Tensor, bias: Tensor, num_chosen: int, scaling: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass; any E up to 64."""
        scores, experts = scores.contiguous(), scores.shape[-1]
        affinity, gates = torch.empty_like(scores), torch.empty_like(scores)
        chosen = torch.empty(scores.shape, dtype=torch.bool)
        ctx.sizes = (scores.numel() // experts, experts)
        ctx.scaling = float(scaling)
        call("route_forward", scores, bias, affinity, chosen, gates, *ctx.sizes, num_chosen, ctx.scaling)
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
        call("route_backward", affinity, chosen, gates, daffinity, dgates, dscores, *ctx.sizes, ctx.scaling)
        return dscores, None, None, None


class Attention(torch.autograd.Function):
    """`attention.attend` over packed rows: token t sees tokens starts[t] … t of its row.

    query [B, T, H, D], key [B, T, Hk, Dk], shared [B, T, D − Dk] or None, value [B, T, Hk, Dv], all bf16, starts
    [B, T] int32 → [B, T, H, Dv]. A key is its own part and behind it the part that all heads share. `key` and
    `value` may be slices; their last dimension is dense.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        key: Tensor,
        shared: Tensor | None,
        value: Tensor,
        starts: Tensor,
        scale: float,
    ) -> Tensor:
        """Online in blocks of queries; only the logarithms of the softmax's sums are kept."""
        query = query.contiguous()
        rows, length, heads, _ = query.shape
        shared = None if shared is None else _rows(shared).view(rows, length, -1)
        shared_size = 0 if shared is None else shared.shape[-1]
        sizes = torch.tensor(
            [rows, length, heads, key.shape[2], key.shape[3], shared_size, value.shape[3]], dtype=torch.int64
        )
        out = torch.empty(rows, length, heads, value.shape[3], dtype=_BF16)
        log_sum = torch.empty(rows, heads, length)
        saved = (query, key, shared, value, starts.contiguous(), out)
        call("attention_forward", *_attention_arguments(sizes, scale, *saved), log_sum)
        ctx.save_for_backward(*saved, log_sum, sizes)
        ctx.scale = scale
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of query, key, shared and value, from recomputed scores."""
        *saved, log_sum, sizes = ctx.saved_tensors
        query, key, shared, value = saved[:4]
        dquery, dkey = torch.empty_like(query), torch.empty(key.shape, dtype=_BF16)
        dvalue = torch.empty(value.shape, dtype=_BF16)
        dshared = None if shared is None else torch.empty(shared.shape, dtype=_BF16)
        call(
            "attention_backward",
            *_attention_arguments(sizes, ctx.scale, *saved),
            log_sum,
            gradients[0].contiguous(),
            dquery,
            dkey,
            dkey.stride(1),
            dkey.stride(2),
            dshared,
            dvalue,
            dvalue.stride(1),
            dvalue.stride(2),
        )
        return dquery, dkey, dshared, dvalue, None, None


def _attention_arguments(
    sizes: Tensor,
    scale: float,
    query: Tensor,
    key: Tensor,
    shared: Tensor | None,
    value: Tensor,
    starts: Tensor,
    out: Tensor,
) -> tuple[Any, ...]:
    shared_token = 0 if shared is None else shared.stride(1)
    return (
        sizes,
        float(scale),
        query,
        query.stride(1),
        key,
        key.stride(1),
        key.stride(2),
        shared,
        shared_token,
        value,
        value.stride(1),
        value.stride(2),
        starts,
        out,
    )


class Experts(torch.autograd.Function):
    """`experts.MixtureOfExperts.chosen_experts`: every token through its chosen experts only.

    x [N, C] in bf16, chosen [N, E] bool with K marks a row, gates [N, E] in fp32, gate_up [E, 2 · I, C] and down
    [E, C, I] in bf16 → [N, C]. Tokens are copied in the order of their experts; each expert is one product.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, chosen: Tensor, gates: Tensor, gate_up: Tensor, down: Tensor, num_chosen: int
    ) -> Tensor:
        """Copies, two products an expert, and each token's sum."""
        x, chosen, gates = x.contiguous(), chosen.contiguous(), gates.contiguous()
        (rows, size), experts, width = x.shape, gates.shape[1], down.shape[2]
        tokens, places = torch.empty(2, rows * num_chosen, dtype=torch.int32).unbind()
        ends = torch.empty(experts, dtype=torch.int64)
        call("sort_by_expert", chosen, tokens, places, ends, rows, experts, num_chosen)
        gate = gates.t()[chosen.t()]  # in the same order: by expert, then by token
        copies, pairs = _gathered(x, tokens), torch.empty(len(tokens), 2 * width, dtype=_BF16)
        hidden, outputs = (
            torch.empty(len(tokens), width, dtype=_BF16),
            torch.empty(len(tokens), size, dtype=_BF16),
        )
        stretches = list(zip([0, *ends.tolist()], ends.tolist(), strict=False))
        for expert, (begin, end) in enumerate(stretches):
            torch.mm(copies[begin:end], gate_up[expert].t(), out=pairs[begin:end])
        call("swiglu_forward", pairs, gate, hidden, len(tokens), 1, width)
        for expert, (begin, end) in enumerate(stretches):
            torch.mm(hidden[begin:end], down[expert].t(), out=outputs[begin:end])
        ctx.save_for_backward(copies, chosen, gate, pairs, hidden, gate_up, down, tokens, places)
        ctx.stretches, ctx.num_chosen = stretches, num_chosen
        return _combined(outputs, places, num_chosen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of x, gates and both weights."""
        copies, chosen, gate, pairs, hidden, gate_up, down, tokens, places = ctx.saved_tensors
        grad = _gathered(gradients[0].contiguous(), tokens)
        dhidden, dpairs, dgate = torch.empty_like(hidden), torch.empty_like(pairs), torch.empty_like(gate)
        dcopies, dgate_up, ddown = torch.empty_like(copies), torch.zeros_like(gate_up), torch.zeros_like(down)
        for expert, (begin, end) in enumerate(ctx.stretches):
            torch.mm(grad[begin:end], down[expert], out=dhidden[begin:end])
            if end > begin:
                torch.mm(grad[begin:end].t(), hidden[begin:end], out=ddown[expert])
        call("swiglu_backward", pairs, gate, dhidden, dpairs, dgate, len(tokens), 1, hidden.shape[1])
        for expert, (begin, end) in enumerate(ctx.stretches):
            torch.mm(dpairs[begin:end], gate_up[expert], out=dcopies[begin:end])
            if end > begin:
                torch.mm(dpairs[begin:end].t(), copies[begin:end], out=dgate_up[expert])
        dgates = torch.zeros(chosen.t().shape).masked_scatter_(chosen.t(), dgate).t()
        return _combined(dcopies, places, ctx.num_chosen), None, dgates, dgate_up, ddown, None


def _gathered(x: Tensor, tokens: Tensor) -> Tensor:
    y = torch.empty(len(tokens), x.shape[1], dtype=_BF16)
    call("gather_rows", x, tokens, y, len(tokens), x.shape[1])
    return y


def _combined(x: Tensor, places: Tensor, count: int) -> Tensor:
    rows, size = len(places) // count, x.shape[1]
    y = torch.empty(rows, size, dtype=_BF16)
    call("combine_rows", x, places, y, rows, count, size)
    return y


class TargetLogProbs(torch.autograd.Function):
    """`log_probs.target_log_probs`: states [N, C] in bf16, weight [V, C] in fp32, targets [N] → [N] in fp32.

    Scores are products of bf16 with fp32 sums and live in the cache only; what is kept of them is the slope of the
    result, in bf16.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Product, softmax and slope, a few rows at a time."""
        states, targets, weight = states.contiguous(), targets.contiguous(), weight.bfloat16()
        pairs, (rows, size) = pack(weight), states.shape
        width, log_prob = pairs.shape[1], torch.empty(rows)
        slopes = torch.empty(rows, width, dtype=_BF16) if any(ctx.needs_input_grad) else None
        call(
            "target_log_probs", states, pairs, targets, 1 / temperature, log_prob, slopes, rows, len(weight), width,
            size,
        )  # fmt: skip
        ctx.save_for_backward(states, weight, slopes)
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Two products; the rows' own gradients are multiplied in where it is cheapest."""
        states, weight, slopes = ctx.saved_tensors
        slopes, grad = slopes[:, : len(weight)], gradients[0].unsqueeze(-1)
        of_states = (slopes @ weight).float().mul_(grad).bfloat16()
        return of_states, (slopes.t() @ (states.float() * grad).bfloat16()).float(), None, None


def pack(weight: Tensor) -> Tensor:
    """A weight [outputs, inputs] as the kernels' products read it: bf16 pairs, int32 [inputs / 2, outputs or more].

    Columns are filled up with zeros to whole lanes: a vocabulary may have any size.
    """
    weight = weight.bfloat16().contiguous()
    outputs, inputs = weight.shape
    pairs = torch.zeros(inputs // 2, -(-outputs // LANES) * LANES, dtype=torch.int32)
    call("pack_weight", weight, pairs, outputs, inputs, pairs.shape[1])
    return pairs


def head_scores(states: Tensor, pairs: Tensor, vocabulary: int) -> Tensor:
    """`decoder.logits`: states [N, C] in bf16, the head's weight as `pack` lays it out → [N, V] in fp32."""
    states, width = states.contiguous(), pairs.shape[1]
    scores = torch.empty(states.shape[0], width)
    call("packed_head", states, pairs, scores, states.shape[0], width, states.shape[1])
    return scores[:, :vocabulary]


def draw(scores: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """One token per row of scores [B, V] in fp32 by inverse sampling: tokens, log-probabilities, entropies, [B]."""
    scores = scores if scores.stride(-1) == 1 else scores.contiguous()
    uniforms = uniforms.contiguous()
    rows, size = scores.shape
    tokens, scratch = torch.empty(rows, dtype=torch.int64), torch.empty(scores.shape)
    log_probs, entropies = torch.empty(2, rows).unbind()
    call(
        "draw",
        scores,
        scores.stride(0),
        uniforms,
        float(1 / temperature),
        tokens,
        log_probs,
        entropies,
        scratch,
        rows,
        size,
    )
    return tokens, log_probs, entropies
