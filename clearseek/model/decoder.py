"""The decoder: embeddings, layers, multi-token prediction, head. One class for every family.

The stream between layers is fp32 whatever the layers compute in: rounding it would make sampler and trainer
choose different experts, and costs more accuracy than it saves time.

Shapes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clearseek.config.model import LayerType, ModelConfig
from clearseek.model.attention import (
    Attention,
    Cache,
    GroupedQueryAttention,
    LatentAttention,
    Visible,
    document_positions,
    positions,
    without_last,
)
from clearseek.model.experts import MixtureOfExperts, RouterLoad
from clearseek.model.kernels.library import fits
from clearseek.model.layers import Linear, RMSNorm, SwiGLU, add_to_stream
from clearseek.model.log_probs import head_logits
from clearseek.model.rotary import Turn, query_growth, rotary_table
from clearseek.model.unread import UnreadWeights

Turns = dict[LayerType, Turn]


@dataclass
class Hidden:
    """What a full pass leaves: final states, those of the multi-token modules, and the routers' loads."""

    states: Tensor  # [B, T, hidden], normalised, ready for the head
    predicted_states: list[Tensor] = field(default_factory=list)  # one [B, T, hidden] per depth
    loads: list[RouterLoad] = field(default_factory=list)


class Layer(nn.Module):
    """Norm, attention, norm, feed-forward, with residual connections."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.layer_type = config.layer_type(index)
        hidden, eps = config.hidden_size, config.rms_norm_eps
        self.attention_norm = RMSNorm(hidden, eps)
        self.attention: Attention = (
            LatentAttention(config) if config.is_latent else GroupedQueryAttention(config, self.layer_type)
        )
        self.feed_forward_norm = RMSNorm(hidden, eps)
        self.feed_forward: MixtureOfExperts | SwiGLU = (
            MixtureOfExperts(config)
            if config.is_moe_layer(index)
            else SwiGLU(hidden, config.intermediate_size, config.mlp_bias)
        )
        self.mixed_norm = RMSNorm(hidden, eps) if config.sandwich_norm else None
        self.fed_norm = RMSNorm(hidden, eps) if config.sandwich_norm else None

    def forward(
        self, x: Tensor, turns: Turns, visible: Visible, dtype: torch.dtype
    ) -> tuple[Tensor, RouterLoad | None]:
        """Full causal pass over packed rows [B, T, hidden], computed in `dtype`; segment 0 is not counted."""
        mixed, _ = self.attention(self.attention_norm(x, dtype), turns[self.layer_type], visible)
        return self.feed(x, mixed, visible.segments)

    def prefill(self, x: Tensor, turns: Turns, visible: Visible, dtype: torch.dtype) -> tuple[Tensor, Cache]:
        """As `forward`, without balancing, and with what the cache keeps of every position."""
        mixed, parts = self.attention(self.attention_norm(x, dtype), turns[self.layer_type], visible)
        return self.feed(x, mixed, None)[0], self.attention.cache_of(parts)

    def entries(self, x: Tensor, turns: Turns, dtype: torch.dtype) -> Cache:
        """What the cache keeps of every position and nothing more: all that is needed of the last layer."""
        normed = self.attention_norm(x, dtype)
        return self.attention.cache_of(self.attention.project(normed, turns[self.layer_type])[1:])

    def decode(self, x: Tensor, turns: Turns, cache: Cache, where: Tensor, visible: Tensor) -> Tensor:
        """New tokens [B, T, hidden], computed in the cache's dtype; extends `cache` in place."""
        normed = self.attention_norm(x, cache[0].dtype)
        mixed = self.attention.decode(normed, turns[self.layer_type], cache, where, visible)
        return self.feed(x, mixed, None)[0]

    def feed(self, x: Tensor, mixed: Tensor, segments: Tensor | None) -> tuple[Tensor, RouterLoad | None]:
        """What attention mixed joins the stream, then the feed-forward half; `segments` ask for a router's load."""
        mixed = mixed if self.mixed_norm is None else self.mixed_norm(mixed)
        x, normed = self.feed_forward_norm.after_adding(x, mixed)
        load = None
        if isinstance(self.feed_forward, SwiGLU):
            output = self.feed_forward(normed)
        else:
            output, load = self.feed_forward(normed, None if segments is None else segments > 0)
        return add_to_stream(x, output if self.fed_norm is None else self.fed_norm(output)), load


class MultiTokenModule(nn.Module):
    """One depth of multi-token prediction (arXiv:2412.19437 §2.2): joins a state with the next embedding.

    MiMo (arXiv:2505.07608) joins them in the other order. ERNIE 4.5's take the state before the model's last norm, and
    share that norm, as its authors train them (PaddlePaddle/ERNIE, `modeling_moe.py`).
    """

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.state_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.embedding_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.join = Linear(2 * config.hidden_size, config.hidden_size)
        self.layer = Layer(config, index)
        self.norm = None if config.mtp_shares_norm else RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.state_first = config.mtp_kind == "mimo"

    def combine(self, states: Tensor, next_embeddings: Tensor, dtype: torch.dtype) -> Tensor:
        """The layer's input at position t: the state at t and the embedding of token t + 1."""
        # the published order of the joined halves: embedding first (DeepSeek-V3 weights, eh_proj)
        halves = self.embedding_norm(next_embeddings, dtype), self.state_norm(states, dtype)
        return self.join(torch.cat(halves[::-1] if self.state_first else halves, dim=-1)).to(
            next_embeddings.dtype
        )


class Decoder(nn.Module):
    """A causal language model; parameters in one dtype, activations in whatever `dtype` the caller asks for."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # not filled here: torch would load its compiler to fill one that has no memory
        self.embedding = nn.Embedding.from_pretrained(
            torch.empty(config.vocab_size, config.hidden_size), freeze=False
        )
        self.layers = nn.ModuleList(Layer(config, index) for index in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = None if config.tie_word_embeddings else Linear(config.hidden_size, config.vocab_size)
        self.mtp = nn.ModuleList(
            MultiTokenModule(config, config.num_layers + depth) for depth in range(config.num_mtp_layers)
        )
        self.rotary: Tensor
        self.sliding_rotary: Tensor
        for name in ("rotary", "sliding_rotary"):
            self.register_buffer(name, torch.empty(2, 0, 0), persistent=False)
        self.stored: UnreadWeights | None = None  # matrices that are still in a file

    @property
    def head_weight(self) -> Tensor:
        """The output projection, [V, hidden]."""
        return self.embedding.weight if self.head is None else self.head.weight

    def initialise(self, generator: torch.Generator) -> None:
        """Random weights: normal with `initializer_range`; maps back into the residual stream are smaller."""
        std = self.config.initializer_range
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue
            into_stream = name.endswith(("out.weight", "down.weight", ".down"))
            depth_scale = (2 * self.config.num_layers) ** -0.5 if into_stream else 1.0
            nn.init.normal_(parameter, std=std * depth_scale, generator=generator)

    def rotary_for(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """cos and sin [length, rotary / 2] of layers that see everything, grown on demand."""
        return self._rotary("rotary", length, device, None)

    def _rotary(
        self, name: str, length: int, device: torch.device, theta: float | None
    ) -> tuple[Tensor, Tensor]:
        table: Tensor = getattr(self, name)
        if table.shape[1] < length or table.device != device:
            with torch.inference_mode(False):  # a table made while sampling serves training too
                table = rotary_table(self.config, max(length, 256), device, theta)
            setattr(self, name, table)
        return table[0, :length], table[1, :length]

    def turns(self, length: int, device: torch.device, place: Tensor | None = None) -> Turns:
        """What each type of layer needs of the positions 0 to `length`, or of those in `place` [B, T]."""
        full = self._turn("rotary", length, device, None, place)
        theta = self.config.sliding_rope_theta
        if theta is None:
            return {"full_attention": full, "sliding_attention": full}
        sliding = self._turn("sliding_rotary", length, device, theta, place)
        return {"full_attention": full, "sliding_attention": sliding}

    def _turn(
        self, name: str, length: int, device: torch.device, theta: float | None, place: Tensor | None
    ) -> Turn:
        cos, sin = self._rotary(name, length, device, theta)
        if place is None:
            return Turn(cos, sin, query_growth(self.config, torch.arange(length, device=device)[None]))
        return Turn(cos[place], sin[place], query_growth(self.config, place))

    def embed(self, tokens: Tensor, dtype: torch.dtype) -> Tensor:
        """The stream's beginning, [..., hidden], in fp32 or wider."""
        return F.embedding(tokens, self.embedding.weight).to(torch.promote_types(dtype, torch.float32))

    def forward(
        self,
        tokens: Tensor,
        segments: Tensor,
        dtype: torch.dtype = torch.float32,
        depth: int | None = None,
        parents: Tensor | None = None,
    ) -> Hidden:
        """Full pass over packed rows [B, T].

        Segments number the documents of a row from 1; 0 is padding. `depth` limits multi-token prediction
        (default: all modules when training, none otherwise). `parents` [B, T]: the segment before it that each
        token's own continues, its own where it continues none.
        """
        turns = self.turns(tokens.shape[1], tokens.device, self._places(segments, parents, dtype))
        embeddings = self.embed(tokens, dtype)
        states, loads, visible = embeddings, [], Visible.of(segments, dtype, parents)
        for layer in self.layers:
            states, load = layer(states, turns, visible, dtype)
            loads.append(load)
        depth = len(self.mtp) * self.training if depth is None else depth
        hidden = Hidden(self.norm(states, dtype))
        given = states if self.config.mtp_shares_norm else hidden.states
        for module in list(self.mtp)[:depth]:
            embeddings = F.pad(embeddings[:, 1:], (0, 0, 0, 1))
            # a document's last token has no next one to join with: from here on it is padding
            segments = without_last(segments, parents)
            assert isinstance(module, MultiTokenModule)
            visible = Visible.of(segments, dtype, parents)
            states, load = module.layer(module.combine(given, embeddings, dtype), turns, visible, dtype)
            hidden.predicted_states.append(self.last_norm(module)(states, dtype))
            given = states if self.config.mtp_shares_norm else hidden.predicted_states[-1]
            loads.append(load)
        hidden.loads = [load for load in loads if load is not None]
        return hidden

    def _places(self, segments: Tensor, parents: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """Where tokens [B, T] stand in their documents; None: their place in the row, as mostly distances alone count.

        The kernels turn by the very angles that the engine turns by: then no bit differs.
        """
        if self.config.counts_from_the_start or fits(dtype, segments):
            return document_positions(segments, parents)
        return None if parents is None else positions(segments, parents)

    def prefill(self, tokens: Tensor, dtype: torch.dtype) -> list[Cache]:
        """Each layer's cache entries of prompts [B, T] padded at the end."""
        turns = self.turns(tokens.shape[1], tokens.device)
        states, caches = self.embed(tokens, dtype), []
        visible = Visible.of(torch.ones_like(tokens), dtype)
        for layer in self.layers[:-1]:
            assert isinstance(layer, Layer)
            states, cache = layer.prefill(states, turns, visible, dtype)
            caches.append(cache)
        last = self.layers[-1]
        assert isinstance(last, Layer)
        return [*caches, last.entries(states, turns, dtype)]

    def decode(self, tokens: Tensor, where: Tensor, caches: list[Cache], dtype: torch.dtype) -> Tensor:
        """Final states [B, T, hidden] of new tokens [B, T] at positions `where` [B, T]; extends the caches."""
        final: Tensor = self.norm(self.extend(tokens, where, caches, dtype), dtype)
        return final

    def extend(self, tokens: Tensor, where: Tensor, caches: list[Cache], dtype: torch.dtype) -> Tensor:
        """As `decode`, before the last norm."""
        turns, visible = self._seen(where, caches[0][0].shape[1])
        states = self.embed(tokens, dtype)
        for layer, cache in zip(self.layers, caches, strict=True):
            assert isinstance(layer, Layer)
            states = layer.decode(states, turns, cache, where, visible)
        return states

    def predict(
        self, states: Tensor, tokens: Tensor, where: Tensor, cache: Cache, dtype: torch.dtype
    ) -> Tensor:
        """States [B, T, hidden] of the first multi-token module at `where` [B, T], before its last norm.

        Extends its cache. `states` [B, T, hidden] are the model's own there, or the module's, after the last norm
        unless the module shares it; `tokens` [B, T] follow them.
        """
        turns, visible = self._seen(where, cache[0].shape[1])
        module = self.mtp[0]
        assert isinstance(module, MultiTokenModule)
        joined = module.combine(states, self.embed(tokens, dtype), dtype)
        return module.layer.decode(joined, turns, cache, where, visible)

    def last_norm(self, module: MultiTokenModule | None) -> RMSNorm:
        """What stands before the head: the model's own norm or a multi-token module's."""
        return self.norm if module is None or module.norm is None else module.norm

    def _seen(self, where: Tensor, length: int) -> tuple[Turns, Tensor]:
        """What layers need of positions `where` [B, T] over a cache of `length`: turns, and what each may see."""
        visible = (torch.arange(length, device=where.device) <= where[..., None])[:, None]
        return self.turns(length, where.device, where), visible

    def logits(self, states: Tensor) -> Tensor:
        """Unnormalised scores [..., V] of final states, in fp32."""
        return head_logits(states, self.head_weight)

    def learn_in_int8(self, int8: bool) -> None:
        """Whether linear layers and experts multiply in int8 while they learn, where there are kernels for it.

        Weight gradients then depend on which rows share a micro-batch, by int8's rounding (under 1 %).
        """
        for module in self.modules():
            if isinstance(module, Linear | SwiGLU | MixtureOfExperts):
                module.int8 = int8

    def absorb_latents(self, absorbs: bool) -> None:
        """Whether latent attention takes the absorbed form in full passes too, where there are kernels for it.

        So the engine computes: log-probabilities are then the same bits. No other layer has two forms.
        """
        for module in self.modules():
            if isinstance(module, LatentAttention):
                module.absorbs = absorbs

    def routers(self) -> Iterator[nn.Module]:
        """Every router, in the order of `Hidden.loads` (multi-token modules last)."""
        modules = [*self.layers, *(module.layer for module in self.mtp)]
        for layer in modules:
            if isinstance(layer.feed_forward, MixtureOfExperts):
                yield layer.feed_forward.router
