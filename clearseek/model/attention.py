"""Attention: grouped-query (arXiv:2305.13245) and DeepSeek's multi-head latent attention (arXiv:2405.04434).

Latent attention has two equal forms. *Expanded* (training, prefill): the latent becomes per-head keys and
values. *Absorbed* (decoding): the up-projections move into the query and the output, so that only the latent
and one shared rotary key are read from the cache. Reinforcement learning trains in the absorbed form where there are
kernels for it: then not a bit of a log-probability differs from what was sampled with.

Shapes: B rows, T tokens, S cached positions, H heads, D head size, R latent rank, P rotary size.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearseek.config.model import LayerType, ModelConfig
from clearseek.model.indexer import Indexer
from clearseek.model.kernels import functions as kernels
from clearseek.model.kernels import products
from clearseek.model.kernels.library import fits
from clearseek.model.layers import Linear, RMSNorm
from clearseek.model.rotary import Turn, rotate, softmax_scale

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


def document_positions(segments: Tensor, parents: Tensor | None) -> Tensor:
    """Positions [B, T] of packed rows in which every document counts from 0, and goes on where its parent ended."""
    own = torch.arange(segments.shape[1], device=segments.device) - first_visible(segments)
    if parents is None:
        return own
    begins, ends = shared_prefix(segments, parents)
    return own + ends - begins


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

    def mask(self, window: int | None = None) -> Tensor:
        """bool [B, 1, T, T]; `window`: only so many positions, the token's own included."""
        visible = causal_mask(self.segments, self.parents)
        if window is None or window >= self.segments.shape[1]:
            return visible
        place = torch.arange(self.segments.shape[1], device=self.segments.device).unsqueeze(0)
        if self.parents is not None:
            place = positions(self.segments, self.parents)
        return visible & (place[:, None, :, None] - place[:, None, None, :] < window)

    def suits(self, query: Tensor, *sizes: int) -> bool:
        """Whether the kernel takes heads of these sizes."""
        return self.starts is not None and fits(query.dtype, query, *sizes)


def attend_packed(
    query: Tensor, key: Tensor, shared: Tensor | None, value: Tensor, visible: Visible, scale: float
) -> Tensor:
    """`attend` over whole packed rows in one kernel: see `kernels.Attention` for the shapes."""
    mixed: Tensor = kernels.Attention.apply(query, key, shared, value, visible.starts, visible.prefix, scale)
    return mixed


def attend(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scale: float, sinks: Tensor | None = None
) -> Tensor:
    """Explicit softmax attention with an fp32 softmax, faster than fused kernels for short rows on a CPU.

    query [B, H, T, D], key [B, H or 1, S, D], value [B, H or 1, S, Dv], visible bool broadcast to
    [B, H, T, S]; `sinks` [H, T, 1] are scores of one more position, which has no value (arXiv:2309.17453).
    Returns [B, H, T, Dv].
    """
    scores = (query @ key.transpose(-1, -2)).float() * scale
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is None:
        return torch.softmax(scores, dim=-1).to(value.dtype) @ value
    sink = sinks.float().expand(*scores.shape[:-1], 1)
    weights = torch.softmax(torch.cat((scores, sink), dim=-1), dim=-1)[..., :-1]
    return weights.to(value.dtype) @ value


def write(cache: Cache, entries: tuple[Tensor, ...], where: Tensor) -> None:
    """Put new entries [B, T, size] into each cache tensor [B, S, size] at positions `where` [B, T], in place."""
    rows = torch.arange(where.shape[0], device=where.device)[:, None]
    for kept, entry in zip(cache, entries, strict=True):
        kept[rows, where] = entry


class GroupedQueryAttention(nn.Module):
    """Queries in `num_heads` heads share `kv_heads` keys and values; some families normalise both per head."""

    def __init__(self, config: ModelConfig, layer_type: LayerType = "full_attention") -> None:
        super().__init__()
        self.num_heads, self.kv_heads = config.num_heads, config.kv_heads_of(layer_type)
        self.head_size, self.value_size = config.head_size, config.value_size
        self.scale, self.value_scale = softmax_scale(config), config.value_scale
        self.window = config.sliding_window if layer_type == "sliding_attention" else None
        self.pairs, self.norm_after = config.rotates_pairs, config.qk_norm == "after_rotary"
        hidden, bias = config.hidden_size, config.qkv_bias
        self.q = Linear(hidden, self.num_heads * self.head_size, bias)
        self.kv = Linear(hidden, self.kv_heads * (self.head_size + self.value_size), bias)
        self.out = Linear(self.num_heads * self.value_size, hidden, config.out_bias)
        has_norm = config.qk_norm != "none"
        self.q_norm = RMSNorm(self.head_size, config.rms_norm_eps) if has_norm else None
        self.k_norm = RMSNorm(self.head_size, config.rms_norm_eps) if has_norm else None
        has_sinks = layer_type in config.sinks
        self.sinks = nn.Parameter(torch.zeros(self.num_heads)) if has_sinks else None

    @property
    def cache_sizes(self) -> tuple[int, ...]:
        """Elements that one position keeps in each cache tensor: all keys, all values."""
        return self.kv_heads * self.head_size, self.kv_heads * self.value_size

    def project(self, x: Tensor, turn: Turn) -> tuple[Tensor, Tensor, Tensor]:
        """Query [B, T, H, D], and the key [B, T, kv_heads · D] and value as the cache keeps them."""
        key, value = self.kv(x).split(self.cache_sizes, dim=-1)
        query = self.turned(self.q(x).unflatten(-1, (self.num_heads, -1)), turn, self.q_norm)
        key = self.turned(key.unflatten(-1, (self.kv_heads, -1)), turn, self.k_norm)
        query = query if turn.growth is None else query * turn.growth.to(query.dtype)
        return query, key.flatten(-2), value if self.value_scale == 1 else value * self.value_scale

    def turned(self, heads: Tensor, turn: Turn, norm: RMSNorm | None) -> Tensor:
        """Heads [B, T, H, D], normalised and turned in this family's order."""
        return rotate(heads, turn, norm, self.pairs, first=True, norm_after=self.norm_after)

    def forward(self, x: Tensor, turn: Turn, visible: Visible) -> tuple[Tensor, Cache]:
        """Full causal pass over [B, T, hidden]; also returns keys and values, for `cache_of`."""
        query, key, value = self.project(x, turn)
        if not (self.is_plain and visible.suits(query, self.head_size)):
            return self.mix(query, (key, value), visible.mask(self.window)), (key, value)
        heads = (part.unflatten(-1, (self.kv_heads, -1)) for part in (key, value))
        mixed = attend_packed(query, next(heads), None, next(heads), visible, self.scale)
        return self.out(mixed.flatten(-2)), (key, value)

    @property
    def is_plain(self) -> bool:
        """Whether the kernels know this attention: no window, no sinks, values as wide as keys."""
        return self.window is None and self.sinks is None and self.head_size == self.value_size

    def cache_of(self, parts: Cache) -> Cache:
        """What the cache keeps of the keys and values that `forward` gave: just them."""
        return parts

    def decode(self, x: Tensor, turn: Turn, cache: Cache, where: Tensor, visible: Tensor) -> Tensor:
        """New tokens [B, T, hidden]: their keys and values join the cache at `where` [B, T], then they attend."""
        query, key, value = self.project(x, turn)
        write(cache, (key, value), where)
        if self.window is not None:
            order = torch.arange(visible.shape[-1], device=visible.device)
            visible = visible & (order > where[..., None] - self.window)[:, None]
        return self.mix(query, cache, visible)

    def mix(self, query: Tensor, cache: Cache, visible: Tensor) -> Tensor:
        """Attend from query [B, T, H, D] to cached keys and values [B, S, kv_heads · size]."""
        key, value = (kept.unflatten(-1, (self.kv_heads, -1)).transpose(1, 2) for kept in cache)
        batch, length = query.shape[:2]
        group = self.num_heads // self.kv_heads
        stacked = query.transpose(1, 2).reshape(batch, self.kv_heads, group * length, self.head_size)
        if length > 1 and group > 1:
            visible = visible.expand(-1, -1, length, -1).repeat(1, 1, group, 1)
        sinks = None
        if self.sinks is not None:
            sinks = (
                self.sinks.to(query.dtype).repeat_interleave(length).view(self.kv_heads, group * length, 1)
            )
        mixed = attend(stacked, key, value, visible, self.scale, sinks)
        mixed = mixed.reshape(batch, self.num_heads, length, self.value_size)
        return self.out(mixed.transpose(1, 2).flatten(-2))


class LatentAttention(nn.Module):
    """Multi-head latent attention: the cache keeps a latent of R elements and one rotary key of P.

    With an indexer (DeepSeek-V3.2) the cache keeps its key too, and a token sees only what that chooses.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_heads, self.scale = config.num_heads, softmax_scale(config)
        self.nope_size, self.rope_size = config.qk_nope_head_dim or 0, config.qk_rope_head_dim or 0
        self.value_size, self.rank = config.v_head_dim or 0, config.kv_lora_rank or 0
        self.pairs = config.rotates_pairs
        query_size = self.num_heads * (self.nope_size + self.rope_size)
        if config.q_lora_rank is None:
            self.q = Linear(config.hidden_size, query_size)
        else:
            self.q_a = Linear(config.hidden_size, config.q_lora_rank, config.qkv_bias)
            self.q_norm = RMSNorm(config.q_lora_rank, config.latent_norm_eps)
            self.q = Linear(config.q_lora_rank, query_size)
        self.has_query_latent = config.q_lora_rank is not None
        self.kv_a = Linear(config.hidden_size, self.rank + self.rope_size, config.qkv_bias)
        self.kv_norm = RMSNorm(self.rank, config.latent_norm_eps)
        self.kv_b = Linear(self.rank, self.num_heads * (self.nope_size + self.value_size))
        self.out = Linear(self.num_heads * self.value_size, config.hidden_size, config.out_bias)
        self.indexer = Indexer(config) if config.index_topk else None
        self.absorbs = False  # also where a full pass could expand

    @property
    def cache_sizes(self) -> tuple[int, ...]:
        """Elements that one position keeps: the latent and behind it the rotary key; the indexer's key."""
        latent = (self.rank + self.rope_size,)
        return latent if self.indexer is None else (*latent, self.indexer.head_size)

    def project(self, x: Tensor, turn: Turn) -> tuple[Tensor, ...]:
        """Query [B, T, H, nope + P], latent [B, T, R], rotary key [B, T, P]; with an indexer its key [B, T, I]."""
        return self.read(x, self.query_latent(x), turn)

    def query_latent(self, x: Tensor) -> Tensor:
        """What queries are made of: the normed query latent where there is one, else x."""
        if not self.has_query_latent:
            return x
        latent: Tensor = self.q_norm(self.q_a(x))
        return latent

    def read(self, x: Tensor, query_latent: Tensor, turn: Turn) -> tuple[Tensor, ...]:
        """As `project`, from the query latent."""
        query = rotate(self.q(query_latent).unflatten(-1, (self.num_heads, -1)), turn, pairs=self.pairs)
        query = query if turn.growth is None else query * turn.growth.to(query.dtype)
        latent, key = self.kv_a(x).split((self.rank, self.rope_size), dim=-1)
        shared_key = rotate(key.unsqueeze(-2), turn, pairs=self.pairs).squeeze(-2)
        index_key = () if self.indexer is None else (self.indexer.key(x, turn),)
        return query, self.kv_norm(latent), shared_key, *index_key

    def forward(self, x: Tensor, turn: Turn, visible: Visible) -> tuple[Tensor, Cache]:
        """Full causal pass, expanded unless it `absorbs`; also returns the latent and the keys, for `cache_of`."""
        query_latent = self.query_latent(x)
        query, latent, shared_key, *index_key = parts = self.read(x, query_latent, turn)
        sizes = self.nope_size, self.rope_size, self.value_size, self.rank
        if self.absorbs and self.indexer is None and visible.suits(query, *sizes):
            return self.out(self.absorbed(query, latent, shared_key, visible).flatten(-2)), parts[1:]
        key, value = (
            self.kv_b(latent)
            .unflatten(-1, (self.num_heads, -1))
            .split((self.nope_size, self.value_size), dim=-1)
        )
        suits = visible.suits(query, self.nope_size, self.rope_size, self.value_size)
        if suits and self.indexer is None:
            mixed = attend_packed(query, key, shared_key, value, visible, self.scale)
            return self.out(mixed.flatten(-2)), parts[1:]
        mask = visible.mask()
        if self.indexer is not None:
            mask = self.indexer(x, query_latent, turn, index_key[0], mask)
        rotary_key = shared_key.unsqueeze(2).expand(-1, -1, self.num_heads, -1)
        key = torch.cat((key, rotary_key), dim=-1).transpose(1, 2)
        mixed = attend(query.transpose(1, 2), key, value.transpose(1, 2), mask, self.scale)
        return self.out(mixed.transpose(1, 2).flatten(-2)), parts[1:]

    def absorbed(self, query: Tensor, latent: Tensor, shared_key: Tensor, visible: Visible) -> Tensor:
        """Values [B, T, H, value] in the absorbed form, as the engine's kernels compute them."""
        key_up, value_up = self.absorbed_weights(self.kv_b.weight.dtype)
        in_latent = products.HeadProducts.apply(query, key_up.mT)
        kept = latent.unsqueeze(2)
        mixed = attend_packed(in_latent, kept, shared_key, kept, visible, self.scale)
        values: Tensor = products.HeadProducts.apply(mixed, value_up)
        return values

    def cache_of(self, parts: Cache) -> Cache:
        """What the cache keeps of the latent and the keys that `forward` gave."""
        return torch.cat(parts[:2], dim=-1), *parts[2:]

    def decode(self, x: Tensor, turn: Turn, cache: Cache, where: Tensor, visible: Tensor) -> Tensor:
        """New tokens [B, T, hidden] in the absorbed form; their latents join the cache at `where` [B, T]."""
        query_latent = self.query_latent(x)
        query, *parts = self.read(x, query_latent, turn)
        write(cache, self.cache_of(tuple(parts)), where)
        if self.indexer is not None:
            visible = self.indexer(x, query_latent, turn, cache[1], visible)
        kept = cache[0]
        key_up, value_up = self.absorbed_weights(x.dtype)
        nope, rope = query.split((self.nope_size, self.rope_size), dim=-1)
        in_latent = (nope.transpose(1, 2) @ key_up).transpose(1, 2)
        batch, length = x.shape[:2]
        query = torch.cat((in_latent, rope), dim=-1).flatten(1, 2)  # [B, T · H, R + P]
        keys, seen = kept.unsqueeze(1), visible.repeat_interleave(self.num_heads, dim=2)
        mixed = attend(query.unsqueeze(1), keys, keys[..., : self.rank], seen, self.scale)
        mixed = mixed.view(batch, length, self.num_heads, self.rank).transpose(1, 2)
        values = mixed @ value_up.transpose(1, 2)
        return self.out(values.transpose(1, 2).flatten(2))

    def absorbed_weights(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The two halves of `kv_b` per head: key [H, nope, R] and value [H, value, R]."""
        weight = self.kv_b.weight.to(dtype).unflatten(0, (self.num_heads, -1))
        key_up, value_up = weight.split((self.nope_size, self.value_size), dim=1)
        return key_up, value_up


Attention = GroupedQueryAttention | LatentAttention
