"""Mixture of experts: DeepSeekMoE (arXiv:2401.06066) with V3's router, and the routers of other families.

Two forms of the same sum: `dense` computes every expert and masks by the gate, keeping shapes static, which
wins while experts are few and narrow; `grouped` sorts tokens by expert and computes only the chosen ones.

Shapes: N tokens, E experts, I expert width, K experts per token.
"""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearseek.config.model import ModelConfig
from clearseek.model.kernels import functions as kernels
from clearseek.model.kernels import products
from clearseek.model.kernels.library import MAX_EXPERTS, fits
from clearseek.model.layers import MANY_ROWS, Linear, SwiGLU, learns_in, swiglu

MAX_RANKED_EXPERTS = 16  # up to here choosing by pairwise comparison compiles to one fused kernel
MAX_DENSE_OVERHEAD = 4.0  # computing all experts is worth it up to this ratio of total to chosen ones


@dataclass(frozen=True)
class RouterLoad:
    """What balancing needs from one layer's forward pass; sums, so that micro-batches simply add up."""

    tokens_per_expert: Tensor  # [E], counted tokens only
    balance_loss: Tensor  # sum over rows of Σ f_i P_i (arXiv:2412.19437, eq. 17-20)


def top_mask(scores: Tensor, count: int) -> Tensor:
    """Mark the `count` largest of the last dimension; of equal scores the lower index wins."""
    size = scores.shape[-1]
    if size > MAX_RANKED_EXPERTS:
        chosen = scores.topk(count, dim=-1).indices
        return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, chosen, True)
    index = torch.arange(size, device=scores.device)
    ours, theirs = scores.unsqueeze(-1), scores.unsqueeze(-2)
    better = (theirs > ours) | ((theirs == ours) & (index[None, :] < index[:, None]))
    return better.sum(-1) < count


def grouped_product(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Rows [N, C] in stretches that end at `ends` [E], each times its own of weights [E, D, C]: [N, D]."""
    traced = x.dtype == torch.bfloat16 or not torch.compiler.is_compiling()
    return F.grouped_mm(x, weights.mT, offs=ends) if traced else _untraced_product(x, weights, ends)


def _untraced_product(x: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """torch 2.11 computes grouped products of other dtypes but refuses to trace them: see `keep_out_of_graphs`."""
    return F.grouped_mm(x, weights.mT, offs=ends)


@cache
def keep_out_of_graphs() -> None:
    """What can't be traced is not: call it before compiling. Importing does not, for that would take a second."""
    global _untraced_product
    _untraced_product = torch.compiler.disable(_untraced_product)


def routing_of(config: ModelConfig) -> Tensor:
    """How experts are chosen, as `Routing` in kernels/routing.h: bytes."""
    numbers = torch.tensor([
        config.num_routed_experts, config.num_experts_per_token, config.num_expert_groups,
        config.num_limited_groups, 2 if config.group_score == "two_best" else 1,
        config.router_scores == "sigmoid", config.normalises_gates,
    ], dtype=torch.int64, device="cpu")  # fmt: skip
    factors = [config.routed_scaling_factor, config.gate_floor]
    parts = numbers, torch.tensor(factors, dtype=torch.float32, device="cpu")
    return torch.cat([part.view(torch.uint8) for part in parts])


class Router(nn.Module):
    """Affinities of tokens and experts; a bias steers which experts are chosen, never how they are weighted.

    Sigmoid affinities are DeepSeek-V3's; a softmax over all experts is what came before and what gpt-oss does,
    whose softmax over the chosen is the same as gates that are made to sum to one.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts = config.num_routed_experts
        self.weight = nn.Parameter(torch.empty(experts, config.hidden_size))
        self.bias = nn.Parameter(torch.zeros(experts)) if config.has_router_bias else None
        self.selection_bias: Tensor | None
        self.register_buffer("selection_bias", torch.zeros(experts) if config.has_selection_bias else None)
        self.num_chosen = config.num_experts_per_token
        self.num_groups, self.num_limited_groups = config.num_expert_groups, config.num_limited_groups
        self.group_best = 2 if config.group_score == "two_best" else 1
        self.scaling, self.floor = config.routed_scaling_factor, config.gate_floor
        self.is_sigmoid, self.normalises = config.router_scores == "sigmoid", config.normalises_gates
        self.routing = routing_of(config)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Affinities, chosen mask and gates of tokens [..., hidden], each [..., E], in fp32."""
        scores = self.scores(x)
        if scores.shape[-1] <= MAX_EXPERTS and fits(x.dtype, x):
            affinity, chosen, gates = kernels.Route.apply(scores, self.selection_bias, self.routing)
            return affinity, chosen, gates
        return self.from_scores(scores)

    def from_scores(self, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As `forward`, of the scores [..., E] that the weight and the bias give tokens, in fp32."""
        affinity = scores.sigmoid() if self.is_sigmoid else scores.softmax(-1)
        ranked = affinity.detach()
        chosen = self.choose(ranked if self.selection_bias is None else ranked + self.selection_bias)
        return affinity, chosen, self.gates(affinity * chosen)

    def scores(self, x: Tensor) -> Tensor:
        """What affinities are made of, [..., E] in fp32."""
        weight, bias = self.weight.float(), None if self.bias is None else self.bias.float()
        if not fits(x.dtype, x, x.shape[-1]):
            return F.linear(x.float(), weight, bias)
        scores: Tensor = products.RouterScores.apply(x, weight)
        return scores if bias is None else scores + bias

    def gates(self, kept: Tensor) -> Tensor:
        """The weights of the experts from the affinities of the chosen ones, the others' zero."""
        if self.normalises:
            total = kept.sum(-1, keepdim=True)
            kept = kept / (total.clamp(min=self.floor) if self.floor else total + 1e-20)
        return kept * self.scaling

    def choose(self, biased: Tensor) -> Tensor:
        """Top-K experts within the best groups; a group is as good as its best one or two experts."""
        if self.num_groups > 1:
            grouped = biased.unflatten(-1, (self.num_groups, -1))
            group_scores = grouped.topk(self.group_best, dim=-1).values.sum(-1)
            allowed = top_mask(group_scores, self.num_limited_groups)
            biased = grouped.masked_fill(~allowed.unsqueeze(-1), float("-inf")).flatten(-2)
        return top_mask(biased, self.num_chosen)

    def load(self, affinity: Tensor, chosen: Tensor, counted: Tensor) -> RouterLoad:
        """Load and sequence-wise balance loss of rows [B, T, E] over the counted tokens [B, T]."""
        weight = counted.unsqueeze(-1).float()
        tokens = weight.sum(1).clamp(min=1.0)
        chosen_per_row = (chosen * weight).sum(1)
        frequency = chosen_per_row / tokens * (chosen.shape[-1] / self.num_chosen)
        share = (affinity / affinity.sum(-1, keepdim=True) * weight).sum(1) / tokens
        return RouterLoad(chosen_per_row.sum(0).detach(), (frequency.detach() * share).sum())


class MixtureOfExperts(nn.Module):
    """Routed experts beside shared ones; gate and up of an expert are one product."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, width, hidden = config.num_routed_experts, config.moe_intermediate_size, config.hidden_size
        self.router = Router(config)
        self.gate_up = nn.Parameter(torch.empty(experts, 2 * width, hidden))
        self.down = nn.Parameter(torch.empty(experts, hidden, width))
        has_bias = config.expert_bias
        self.gate_up_bias = nn.Parameter(torch.zeros(experts, 2 * width)) if has_bias else None
        self.down_bias = nn.Parameter(torch.zeros(experts, hidden)) if has_bias else None
        self.limit, self.alpha = config.swiglu_limit, config.swiglu_alpha
        self.is_plain = not has_bias and self.limit is None
        self.shared = SwiGLU(hidden, config.shared_size, config.mlp_bias) if config.shared_size else None
        self.shared_gate = Linear(hidden, 1) if config.has_shared_gate else None
        overhead = experts / config.num_experts_per_token
        is_small = experts <= MAX_RANKED_EXPERTS and overhead <= MAX_DENSE_OVERHEAD
        self.is_dense_form = is_small and self.is_plain
        self.int8 = False

    def forward(self, x: Tensor, counted: Tensor | None) -> tuple[Tensor, RouterLoad | None]:
        """Map [B, T, hidden]; `counted` [B, T] asks for the load over those tokens."""
        affinity, chosen, gates = self.router(x)
        is_dense = self.is_dense_form and not self.fits_kernels(x)
        routed = self.all_experts(x, gates) if is_dense else self.chosen_experts(x, chosen, gates)
        output = routed if self.shared is None else routed + self.shared_experts(x)
        return output, None if counted is None else self.router.load(affinity, chosen, counted)

    def shared_experts(self, x: Tensor) -> Tensor:
        """What every token gets, through a gate of its own in Qwen2-MoE."""
        assert self.shared is not None
        output: Tensor = self.shared(x)
        return output if self.shared_gate is None else output * self.shared_gate(x).sigmoid()

    def fits_kernels(self, x: Tensor) -> bool:
        """Whether there is a kernel for this: then sorting tokens costs little."""
        is_large = x.numel() >= MANY_ROWS * x.shape[-1] and self.is_plain
        return is_large and fits(x.dtype, x, x.shape[-1], self.down.shape[-1])

    def all_experts(self, x: Tensor, gates: Tensor) -> Tensor:
        """Every expert on every token: one wide SwiGLU whose hidden units are scaled by the gates."""
        gate_up = F.linear(x, self.gate_up.to(x.dtype).flatten(0, 1))
        hidden = swiglu(gate_up, gates, gates.shape[-1])
        return F.linear(hidden, self.down.to(x.dtype).transpose(0, 1).flatten(1))

    def chosen_experts(self, x: Tensor, chosen: Tensor, gates: Tensor) -> Tensor:
        """Only the chosen experts: copies of the tokens sorted by expert, then grouped products."""
        flat, num_chosen = x.flatten(0, -2), self.router.num_chosen
        if self.fits_kernels(x):
            rest = chosen.flatten(0, -2), gates.flatten(0, -2), num_chosen, learns_in(self.int8)
            return products.FeedForward.apply(flat, self.gate_up, self.down, *rest).view_as(x)
        expert = chosen.flatten(0, -2).to(torch.int8).topk(num_chosen, dim=-1).indices  # [N, K]
        gate_of = gates.flatten(0, -2).gather(-1, expert).flatten()
        order = expert.flatten().argsort(stable=True)
        token = order // num_chosen
        ends = torch.bincount(expert.flatten(), minlength=chosen.shape[-1]).cumsum(0).to(torch.int32)
        gate_up = grouped_product(flat[token], self.gate_up.to(x.dtype), ends)
        ordered = expert.flatten()[order]
        if self.gate_up_bias is not None:
            gate_up = gate_up + self.gate_up_bias.to(x.dtype)[ordered]
        gates_in_order = gate_of[order].unsqueeze(-1).to(x.dtype)
        hidden = self.activate(gate_up) * gates_in_order
        outputs = grouped_product(hidden, self.down.to(x.dtype), ends)
        if self.down_bias is not None:
            outputs = outputs + self.down_bias.to(x.dtype)[ordered] * gates_in_order
        return torch.zeros_like(flat).index_add(0, token, outputs).view_as(x)

    def activate(self, gate_up: Tensor) -> Tensor:
        """SwiGLU of [N, 2 · I], or gpt-oss's: clamped, with a sharper sigmoid and `up + 1`."""
        gate, up = gate_up.chunk(2, dim=-1)
        if self.limit is None:
            return F.silu(gate) * up
        gate, up = gate.clamp(max=self.limit), up.clamp(-self.limit, self.limit)
        return gate * torch.sigmoid(self.alpha * gate) * (up + 1)
