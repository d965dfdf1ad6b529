"""Matrix products as differentiable functions: weights are packed for every call, and gradients of them are fp32.

Torch's own products prepare every shape that they have not met for longer than they then compute, and run at half
the rate where they are small. Shapes: N rows, C inputs, D outputs, E experts, I hidden units, V vocabulary;
multiples of 16 but for N, E and V.

In int8 a row of the left side has a scale and a column of the right one, found anew for every call; of the gradient of
a weight every column of `DEEP` rows has (`arithmetic.h`). Sums are exact; results and what is kept are bf16 and fp32.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from clearseek.model.kernels.functions import call, dense_rows
from clearseek.model.kernels.library import LANES

_Gradients = tuple[Tensor | None, ...]
_PANEL = 64


def pack(weight: Tensor, *, transposed: bool = True) -> Tensor:
    """Weights [..., D, C] in fp32 or bf16 as the kernels read them: bf16 pairs in panels of 64 columns, int32.

    [..., D / 64, C / 2, 64] for products with their transpose, else [..., C / 64, D / 2, 64]; D may be any number.
    """
    weight = (
        weight.detach().contiguous()
        if weight.dtype == torch.float32
        else weight.detach().bfloat16().contiguous()
    )
    *many, outputs, inputs = weight.shape
    depth, width = (inputs, outputs) if transposed else (-(-outputs // LANES) * LANES, inputs)
    shape = *many, -(-width // _PANEL), depth // 2, _PANEL
    is_whole = transposed or not outputs % LANES
    packed = torch.empty(shape, dtype=torch.int32) if is_whole else torch.zeros(shape, dtype=torch.int32)
    places = (packed, None) if transposed else (None, packed)
    count = weight.numel() // max(outputs * inputs, 1)
    call("pack_weights", int(weight.dtype == torch.float32), weight, *places, count, outputs, inputs)
    return packed


def quantise(weight: Tensor, *, transposed: bool = True) -> Tensor:
    """As `pack` does, in int8 with a scale for each column: [..., words] int32, for products in int8 only."""
    weight = weight.detach().bfloat16().contiguous()
    *many, outputs, inputs = weight.shape
    depth, width = (inputs, outputs) if transposed else (outputs, inputs)
    columns = -(-width // _PANEL) * _PANEL
    packed = torch.empty(*many, columns * (depth // 4 + 2), dtype=torch.int32)
    places = (packed, None) if transposed else (None, packed)
    call("quantise_weights", weight, *places, weight.numel() // (outputs * inputs), outputs, inputs)
    return packed


def _packed(weight: Tensor, *, int8: bool, transposed: bool = True) -> Tensor:
    return (quantise if int8 else pack)(weight, transposed=transposed)


def _back(
    dy: Tensor,
    weight: Tensor,
    x: Tensor,
    factor: Tensor | None = None,
    needs: Sequence[bool] = (True, True),
    int8: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and weight from dy [N, D], its rows dense, each times its factor: [N, C] and [D, C] in fp32.

    `weight` [D or fewer, C]; the gradient's rows beyond it belong to columns of dy that fill it up to whole lanes.
    """
    (rows, outputs), inputs = dy.shape, x.shape[1]
    dx = x.new_empty(rows, inputs) if needs[0] else None
    dw = x.new_empty(outputs, inputs, dtype=torch.float32) if needs[1] else None
    packed = _packed(weight, int8=int8, transposed=False) if needs[0] else None
    given = dy, dy.stride(0), packed, x, x.stride(0), factor
    call("linear_backward", int(int8), *given, dx, dw, rows, inputs, outputs)
    return dx, dw


class Linear(torch.autograd.Function):
    """`layers.Linear`: x [..., C] in bf16, weight [D, C] in fp32 or bf16 → [..., D] in bf16; in int8 if told so."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, int8: bool = False) -> Tensor:
        """One product."""
        flat, ctx.int8 = dense_rows(x), int8
        ctx.save_for_backward(flat, weight)
        y = x.new_empty(*x.shape[:-1], len(weight))
        given = flat, flat.stride(0), _packed(weight, int8=int8)
        call("linear_forward", int(int8), *given, y, *flat.shape, len(weight))
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of x and weight."""
        flat, weight = ctx.saved_tensors
        dx, dw = _back(dense_rows(gradients[0]), weight, flat, needs=ctx.needs_input_grad, int8=ctx.int8)
        dx = None if dx is None else dx.view(*gradients[0].shape[:-1], flat.shape[1])
        return dx, None if dw is None else dw.to(weight.dtype), None


class HeadProducts(torch.autograd.Function):
    """Every head times its own weight: x [..., H, C + P] in bf16, weight [H, D, C] in fp32 or bf16 → [..., H, D + P].

    A head's last P numbers go with it as they are.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """One product a head."""
        x, (heads, outputs, inputs) = x.contiguous(), weight.shape
        passed = x.shape[-1] - inputs
        ctx.sizes = x.numel() // (heads * x.shape[-1]), heads, inputs, outputs, passed
        y = x.new_empty(*x.shape[:-1], outputs + passed)
        call("heads_forward", x, pack(weight), y, *ctx.sizes)
        ctx.save_for_backward(x, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of x and weight."""
        x, weight = ctx.saved_tensors
        dx, dw = torch.empty_like(x), None
        if ctx.needs_input_grad[1]:
            dw = torch.empty(weight.shape, dtype=torch.float32)
        given = gradients[0].contiguous(), pack(weight, transposed=False), x
        call("heads_backward", *given, dx, dw, *ctx.sizes)
        return dx, None if dw is None else dw.to(weight.dtype)


class FeedForward(torch.autograd.Function):
    """`layers.SwiGLU`, or `experts.MixtureOfExperts.chosen_experts`: every token through its chosen experts only.

    x [N, C] in bf16, gate_up [E, 2 · I, C], down [E, C, I] in fp32 or bf16 → [N, C]; chosen [N, E] bool with K marks
    a row and gates [N, E] in fp32, or None of both: one expert for all. Products in int8 if told so. Hidden units stay
    in the cache.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        gate_up: Tensor,
        down: Tensor,
        chosen: Tensor | None = None,
        gates: Tensor | None = None,
        num_chosen: int = 1,
        int8: bool = False,
    ) -> Tensor:
        """Tokens in the order of their experts, both products a few rows at a time, and each token's sum."""
        x = x.contiguous()
        ctx.sizes = experts, size, width = len(gate_up), x.shape[1], down.shape[2]
        ctx.num_chosen, ctx.int8 = num_chosen, int8
        tokens = places = gate = None
        ends = torch.full((experts,), len(x))
        if chosen is not None:
            assert gates is not None
            chosen = chosen.contiguous()
            tokens, places = torch.empty(2, len(x) * num_chosen, dtype=torch.int32).unbind()
            gate = torch.empty(len(tokens))
            marks = chosen, gates.detach().float().contiguous()
            call("sort_by_expert", *marks, tokens, places, gate, ends, len(x), experts, num_chosen)
            assert int(ends[-1]) == len(tokens), "every token chooses as many experts"
        count = len(x) * num_chosen
        pairs, y = x.new_empty(count, 2 * width), x.new_empty(count, size)
        packed = _packed(gate_up, int8=int8), _packed(down, int8=int8)
        call("feed_forward_forward", int(int8), x, tokens, gate, ends, *packed, pairs, y, *ctx.sizes)
        ctx.save_for_backward(x, tokens, places, chosen, gate, ends, gate_up, down, pairs)
        return y if places is None else _combined(y, places, num_chosen)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of x, gates and the weights that learn."""
        x, tokens, places, chosen, gate, ends, gate_up, down, pairs = ctx.saved_tensors
        experts, size, _ = ctx.sizes
        dx = x.new_empty(len(pairs), size)
        dgate = None if gate is None else torch.empty_like(gate)
        weights = [
            torch.empty(weight.shape, dtype=torch.float32) if is_needed else None
            for weight, is_needed in zip((gate_up, down), ctx.needs_input_grad[1:3], strict=True)
        ]
        packed = [_packed(weight, int8=ctx.int8, transposed=False) for weight in (gate_up, down)]
        given = x, gradients[0].contiguous(), tokens, gate, ends, *packed, pairs
        call("feed_forward_backward", int(ctx.int8), *given, dx, dgate, *weights, *ctx.sizes)
        weights = [None if weight is None else weight.to(down.dtype) for weight in weights]
        if places is None:
            return dx, *weights, None, None, None, None
        dgates = torch.empty(chosen.shape)
        call("gates_of_tokens", chosen, places, dgate, dgates, len(x), experts, ctx.num_chosen)
        return _combined(dx, places, ctx.num_chosen), *weights, None, dgates, None, None


def _combined(x: Tensor, places: Tensor, count: int) -> Tensor:
    y = x.new_empty(len(places) // count, x.shape[1])
    call("combine_rows", x, places, y, len(y), count, x.shape[1])
    return y


class TargetLogProbs(torch.autograd.Function):
    """`log_probs.target_log_probs`: states [N, C] in bf16, weight [V, C] in fp32, targets [N] → [N] in fp32.

    Scores are products of bf16 with fp32 sums and live in the cache only; what is kept of them is the slope of the
    result, in bf16.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Product, softmax and slope, a few rows at a time. IndexError for a target outside the vocabulary."""
        states, targets = states.contiguous(), targets.contiguous()
        if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < len(weight):
            raise IndexError(f"a target lies outside the vocabulary of {len(weight)} tokens")
        packed, (count, size), width = pack(weight), states.shape, -(-len(weight) // LANES) * LANES
        log_prob = states.new_empty(count, dtype=torch.float32)
        slopes = states.new_empty(count, width) if any(ctx.needs_input_grad) else None
        given, sizes = (states, packed, targets, float(1 / temperature)), (count, len(weight), width, size)
        call("target_log_probs", *given, log_prob, slopes, *sizes)
        ctx.save_for_backward(states, weight, slopes)
        return log_prob

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Both products of a few rows at a time; the rows' own gradients are multiplied in on the way."""
        states, weight, slopes = ctx.saved_tensors
        dstates, dweight = _back(slopes, weight, states, gradients[0].contiguous(), ctx.needs_input_grad)
        dweight = None if dweight is None else dweight[: len(weight)].to(weight.dtype)
        return dstates, dweight, None, None


class RouterScores(torch.autograd.Function):
    """`F.linear(x.float(), weight)`: x [..., C] in bf16, weight [E, C] in fp32 → [..., E] in fp32."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        """One product in fp32, whose sums run as the engine's."""
        flat, (experts, size) = x.reshape(-1, x.shape[-1]).contiguous(), weight.shape
        panels, width = -(-experts // _PANEL), -(-experts // LANES) * LANES
        laid = torch.empty(panels * _PANEL * size, dtype=torch.float32)
        call("lay_out_weight", 1, weight.contiguous(), experts, size, 0, 0, laid)
        scores = torch.empty(len(flat), width)
        call("router_scores", flat, laid, scores, len(flat), size, width)
        ctx.save_for_backward(flat, weight)
        return scores[:, :experts].unflatten(0, x.shape[:-1]).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> _Gradients:
        """Gradients of x and weight."""
        flat, weight = ctx.saved_tensors
        dscores = gradients[0].flatten(0, -2)
        dx = (dscores @ weight).to(flat.dtype).view(*gradients[0].shape[:-1], -1)
        return dx, dscores.mT @ flat.float()


def head_scores(states: Tensor, packed: Tensor, vocabulary: int) -> Tensor:
    """`decoder.logits`: states [N, C] in bf16, the head's weight as `pack` lays it out → [N, V] in fp32."""
    states, width = states.contiguous(), -(-vocabulary // LANES) * LANES
    scores = states.new_empty(len(states), width, dtype=torch.float32)
    call("packed_head", states, packed, scores, len(states), width, states.shape[1])
    return scores[:, :vocabulary]
