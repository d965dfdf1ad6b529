"""Attention: grouped-query (arXiv:2305.13245) and DeepSeek's multi-head latent attention (arXiv:2405.04434).

Latent attention has two equal forms. *Expanded* (training, prefill): the latent becomes per-head keys and
values. *Absorbed* (decoding): the up-projections move into the query and the output, so that only the latent
and one shared rotary key are read from the cache.

Shapes: B rows, T tokens, S cached positions, H heads, D head size, R latent rank, P rotary size.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearseek.config.model import ModelConfig
from clearseek.model.kernels import functions as kernels
from clearseek.model.kernels.library import fits
from clearseek.model.layers import Linear, RMSNorm
from clearseek.model.rotary import rotate, softmax_scale

LATENT_NORM_EPS = 1e-6  # published implementations fix it, whatever rms_norm_eps says

Cache = tuple[Tensor, ...]  # what a layer keeps: one tensor [B, S, size] for each of `cache_sizes`


def causal_mask(segments: Tensor, parents: Tensor | None = None) -> Tensor:
    """Who may see whom in packed rows [B, T]: earlier tokens of the same segment and of its parent.

    bool [B, 1, T, T].
    """
    same = segments[:, None, :, None] == segments[:, None, None, :]
    if parents is not None:
        same = same | (parents[:, None, :, None] == segments[:, None, None, :])
    length = segments.shape[1]
    order = torch.arange(length, device=segments.device)
    return same & (order[:, None] >= order[None, :])


def first_visible(segments: Tensor) -> Tensor:
    """For packed rows [B, T] whose segments are runs: where each token's own segment begins, int32 [B, T]."""
    begins = segments[:, 1:] != segments[:, :-1]
    place = torch.arange(1, segments.shape[1], device=segments.device)
    return F.pad((begins * place).cummax(dim=1).values, (1, 0)).to(torch.int32)


def shared_prefix(segments: Tensor, parents: Tensor) -> Tensor:
    """Where what each token sees of its segment's parent begins and ends, int32 [2, B, T]; empty without a parent.

    A parent stands before all that continue it, and nothing but them between.
    """
    starts, place = first_visible(segments), torch.arange(1, segments.shape[1] + 1, device=segments.device)
    has_parent = segments != parents
    ends = torch.minimum((~has_parent * place).cummax(dim=1).values, starts)
    begins = starts.gather(1, (ends - 1).clamp(min=0)).where(has_parent, starts)
    return torch.stack((begins, ends.where(has_parent, starts))).to(torch.int32)


def positions(segments: Tensor, parents: Tensor) -> Tensor:
    """Positions [B, T] of packed rows in which a segment goes on counting where its parent ended."""
    ends = shared_prefix(segments, parents)[1]
    return torch.arange(segments.shape[1], device=segments.device) - (first_visible(segments) - ends)


def without_last(segments: Tensor, parents: Tensor | None) -> Tensor:
    """Segments [B, T] whose last token counts as padding, unless another segment continues from it."""
    goes_on = segments == F.pad(segments[:, 1:], (0, 1))
    if parents is not None:
        goes_on = goes_on | (segments == F.pad(parents[:, 1:], (0, 1)))
    return segments * goes_on


@dataclass(frozen=True)
class Visible:
    """Who may see whom in packed rows: a token sees its own segment and its parent up to itself.

    `segments` and `parents` [B, T]; for the kernels where each token's own segment begins, [B, T], and where its
    parent's begins and ends, [2, B, T]. Without parents every segment stands alone.
    """

    segments: Tensor
    parents: Tensor | None = None
    starts: Tensor | None = None
    prefix: Tensor | None = None

    @classmethod
    def of(cls, segments: Tensor, dtype: torch.dtype, parents: Tensor | None = None) -> "Visible":
        """For rows computed in `dtype`; made once, used by every layer."""
        if not fits(dtype, segments):
            return cls(segments, parents)
        prefix = None if parents is None else shared_prefix(segments, parents)
        return cls(segments, parents, first_visible(segments), prefix)

    def mask(self) -> Tensor:
        """bool [B, 1, T, T]."""
        return causal_mask(self.segments, self.parents)

    def suits(self, query: Tensor, *sizes: int) -> bool:
        """Whether the kernel takes heads of these sizes."""
        return self.starts is not None and fits(query.dtype, query, *sizes)


def attend_packed(
    query: Tensor, key: Tensor, shared: Tensor | None, value: Tensor, visible: Visible, scale: float
) -> Tensor:
    """`attend` over whole packed rows in one kernel: see `kernels.Attention` for the shapes."""
    mixed: Tensor = kernels.Attention.apply(query, key, shared, value, visible.starts, visible.prefix, scale)
    return mixed


def attend(query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scale: float) -> Tensor:
    """Explicit softmax attention with an fp32 softmax, faster than fused kernels for short rows on a CPU.

    query [B, H, T, D], key [B, H or 1, S, D], value [B, H or 1, S, Dv], visible bool broadcast to
    [B, H, T, S]; returns [B, H, T, Dv].
    """
    scores = (query @ key.transpose(-1, -2)).float() * scale
    weights = torch.softmax(scores.masked_fill(~visible, float("-inf")), dim=-1)
    return weights.to(value.dtype) @ value


def write(cache: Cache, entries: tuple[Tensor, ...], where: Tensor) -> None:
    """Put one new entry [B, 1, size] per row into each cache tensor [B, S, size] at position `where` [B], in place."""
    rows = torch.arange(where.shape[0], device=where.device)
    for kept, entry in zip(cache, entries, strict=True):
        kept[rows, where] = entry[:, 0]


class GroupedQueryAttention(nn.Module):
    """Queries in `num_heads` heads share `kv_heads` keys and values; Qwen3 normalises both per head."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.kv_heads, self.head_size = config.num_heads, config.kv_heads, config.head_size
        self.scale = softmax_scale(config)
        self.q = Linear(config.hidden_size, self.num_heads * self.head_size)
        self.kv = Linear(config.hidden_size, 2 * self.kv_heads * self.head_size)
        self.out = Linear(self.num_heads * self.head_size, config.hidden_size)
        self.q_norm = RMSNorm(self.head_size, config.rms_norm_eps) if config.has_qk_norm else None
        self.k_norm = RMSNorm(self.head_size, config.rms_norm_eps) if config.has_qk_norm else None

    @property
    def cache_sizes(self) -> tuple[int, ...]:
        """Elements that one position keeps in each cache tensor: all keys, all values."""
        return self.kv_heads * self.head_size, self.kv_heads * self.head_size

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, T, H, D], and the key and value [B, T, kv_heads · D] as the cache keeps them."""
        key, value = self.kv(x).chunk(2, dim=-1)
        query = rotate(self.q(x).unflatten(-1, (self.num_heads, -1)), cos, sin, norm=self.q_norm)
        key = rotate(key.unflatten(-1, (self.kv_heads, -1)), cos, sin, norm=self.k_norm)
        return query, key.flatten(-2), value

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Visible) -> tuple[Tensor, Cache]:
        """Full causal pass over [B, T, hidden]; also returns keys and values, for `cache_of`."""
        query, key, value = self.project(x, cos, sin)
        if not visible.suits(query, self.head_size):
            return self.mix(query, (key, value), visible.mask()), (key, value)
        heads = (part.unflatten(-1, (self.kv_heads, -1)) for part in (key, value))
        mixed = attend_packed(query, next(heads), None, next(heads), visible, self.scale)
        return self.out(mixed.flatten(-2)), (key, value)

    def cache_of(self, parts: Cache) -> Cache:
        """What the cache keeps of the keys and values that `forward` gave: just them."""
        return parts

    def decode(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache, where: Tensor, visible: Tensor
    ) -> Tensor:
        """One new token per row, [B, 1, hidden]: its key and value join the cache at `where` [B], then it attends."""
        query, key, value = self.project(x, cos, sin)
        write(cache, (key, value), where)
        return self.mix(query, cache, visible)

    def mix(self, query: Tensor, cache: Cache, visible: Tensor) -> Tensor:
        """Attend from query [B, T, H, D] to cached keys and values [B, S, kv_heads · D]."""
        key, value = (kept.unflatten(-1, (self.kv_heads, -1)).transpose(1, 2) for kept in cache)
        batch, length = query.shape[:2]
        group = self.num_heads // self.kv_heads
        stacked = query.transpose(1, 2).reshape(batch, self.kv_heads, group * length, self.head_size)
        if length > 1 and group > 1:
            visible = visible.expand(-1, -1, length, -1).repeat(1, 1, group, 1)
        mixed = attend(stacked, key, value, visible, self.scale)
        mixed = mixed.reshape(batch, self.num_heads, length, self.head_size)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class LatentAttention(nn.Module):
    """Multi-head latent attention: the cache keeps a latent of R elements and one rotary key of P."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.scale = config.num_heads, softmax_scale(config)
        self.nope_size, self.rope_size = config.qk_nope_head_dim or 0, config.qk_rope_head_dim or 0
        self.value_size, self.rank = config.v_head_dim or 0, config.kv_lora_rank or 0
        query_size = self.num_heads * (self.nope_size + self.rope_size)
        if config.q_lora_rank is None:
            self.q = Linear(config.hidden_size, query_size)
        else:
            self.q_a = Linear(config.hidden_size, config.q_lora_rank)
            self.q_norm = RMSNorm(config.q_lora_rank, LATENT_NORM_EPS)
            self.q = Linear(config.q_lora_rank, query_size)
        self.has_query_latent = config.q_lora_rank is not None
        self.kv_a = Linear(config.hidden_size, self.rank + self.rope_size)
        self.kv_norm = RMSNorm(self.rank, LATENT_NORM_EPS)
        self.kv_b = Linear(self.rank, self.num_heads * (self.nope_size + self.value_size))
        self.out = Linear(self.num_heads * self.value_size, config.hidden_size)

    @property
    def cache_sizes(self) -> tuple[int, ...]:
        """Elements that one position keeps: the latent and behind it the rotary key."""
        return (self.rank + self.rope_size,)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, T, H, nope + P], latent [B, T, R], rotary key [B, T, P]."""
        query = self.q(self.q_norm(self.q_a(x)) if self.has_query_latent else x)
        query = rotate(query.unflatten(-1, (self.num_heads, -1)), cos, sin, pairs=True)
        latent, key = self.kv_a(x).split((self.rank, self.rope_size), dim=-1)
        shared_key = rotate(key.unsqueeze(-2), cos, sin, pairs=True).squeeze(-2)
        return query, self.kv_norm(latent), shared_key

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, visible: Visible) -> tuple[Tensor, Cache]:
        """Full causal pass in the expanded form; also returns the latent and rotary key, for `cache_of`."""
        query, latent, shared_key = self.project(x, cos, sin)
        key, value = (
            self.kv_b(latent)
            .unflatten(-1, (self.num_heads, -1))
            .split((self.nope_size, self.value_size), dim=-1)
        )
        parts = latent, shared_key
        if visible.suits(query, self.nope_size, self.rope_size, self.value_size):
            mixed = attend_packed(query, key, shared_key, value, visible, self.scale)
            return self.out(mixed.flatten(-2)), parts
        rotary_key = shared_key.unsqueeze(2).expand(-1, -1, self.num_heads, -1)
        key = torch.cat((key, rotary_key), dim=-1).transpose(1, 2)
        mixed = attend(query.transpose(1, 2), key, value.transpose(1, 2), visible.mask(), self.scale)
        return self.out(mixed.transpose(1, 2).flatten(-2)), parts

    def cache_of(self, parts: Cache) -> Cache:
        """What the cache keeps of the latent and the rotary key that `forward` gave."""
        return (torch.cat(parts, dim=-1),)

    def decode(
        self, x: Tensor, cos: Tensor, sin: Tensor, cache: Cache, where: Tensor, visible: Tensor
    ) -> Tensor:
        """One new token per row, [B, 1, hidden], in the absorbed form; its latent joins the cache at `where` [B]."""
        query, latent, shared_key = self.project(x, cos, sin)
        write(cache, (torch.cat((latent, shared_key), dim=-1),), where)
        (kept,) = cache
        key_up, value_up = self.absorbed_weights(x.dtype)
        nope, rope = query.squeeze(1).split((self.nope_size, self.rope_size), dim=-1)
        in_latent = torch.bmm(nope.transpose(0, 1), key_up).transpose(0, 1)
        query = torch.cat((in_latent, rope), dim=-1)  # [B, H, R + P]
        keys = kept.unsqueeze(1)
        mixed = attend(query.unsqueeze(1), keys, keys[..., : self.rank], visible, self.scale).squeeze(1)
        values = torch.bmm(mixed.transpose(0, 1), value_up.transpose(1, 2))
        return self.out(values.transpose(0, 1).flatten(1).unsqueeze(1))

    def absorbed_weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The two halves of `kv_b` per head: key [H, nope, R] and value [H, value, R]."""
        weight = self.kv_b.weight.to(dtype).unflatten(0, (self.num_heads, -1))
        key_up, value_up = weight.split((self.nope_size, self.value_size), dim=1)
        return key_up, value_up


Attention = GroupedQueryAttention | LatentAttention
