"""A model's weights laid out for `decode.cpp`: one call decodes a token for every row, through all layers.

The plain form is `Decoder.decode`; `FusedDecoder.of` says whether a model can be decoded this way.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from clearseek.config.model import ModelConfig
from clearseek.model.attention import Cache, GroupedQueryAttention, LatentAttention
from clearseek.model.decoder import Decoder, Layer
from clearseek.model.experts import MixtureOfExperts
from clearseek.model.kernels.functions import call
from clearseek.model.kernels.library import LANES, MAX_EXPERTS, MAX_HEAD, fits
from clearseek.model.kernels.products import head_scores, pack
from clearseek.model.layers import SwiGLU

_NO_MATRIX = (0, 0, 0)


class FusedDecoder:
    """Packed copies of a model's matrices, and where everything lies; fp32 norms and the embedding are its own.

    Made again whenever the model's weights change.
    """

    def __init__(self, model: Decoder) -> None:
        self.model = model
        self.kept: list[Tensor] = []  # what the addresses below point at
        self.widest = model.config.hidden_size
        self.norm = self._address(model.norm.weight)
        self.layers = [self._layer(layer) for layer in model.layers if isinstance(layer, Layer)]
        self.head = pack(model.head_weight)

    @classmethod
    def of(cls, model: Decoder, dtype: torch.dtype) -> "FusedDecoder | None":
        """For a model computed in `dtype`; None where the kernels don't take it."""
        return cls(model) if _is_fit(model, dtype) else None

    def decode(self, tokens: Tensor, where: Tensor, caches: Sequence[Cache]) -> Tensor:
        """As `Decoder.decode`: final states [B, hidden] in bf16 of tokens [B] at positions `where` [B]."""
        tokens, where = tokens.contiguous(), where.contiguous()
        plan = _Plan(self, caches, tokens, where)
        states = torch.empty(len(tokens), self.model.config.hidden_size, dtype=torch.bfloat16)
        call("decode_step", *plan.tensors, tokens, where, states, self.widest, len(tokens))
        return states

    def decode_on(
        self,
        slots: Sequence[Tensor],
        caches: Sequence[Cache],
        temperature: float,
        stop_ids: Tensor,
        most: int,
    ) -> None:
        """Decode and draw up to `most` tokens of every row, until an active one draws a stop id or spends its budget.

        `slots` are `Slots.PER_SLOT`, extended in place; `stop_ids` int64 [S]. The same numbers as `decode`, `logits`
        and `draw` in turn.
        """
        assert all(slot.is_contiguous() for slot in slots)
        plan, config = _Plan(self, caches, *slots[:2]), self.model.config
        places = torch.tensor([slot.data_ptr() for slot in slots], dtype=torch.int64)
        width = -(-config.vocab_size // LANES) * LANES
        call(
            "decode_on", *plan.tensors, places, *slots[-1].shape, self.head, config.vocab_size, width,
            config.hidden_size, float(1 / temperature), stop_ids, len(stop_ids), most, self.widest,
        )  # fmt: skip

    def logits(self, states: Tensor) -> Tensor:
        """As `Decoder.logits`: states [B, hidden] in bf16 → [B, V] in fp32."""
        return head_scores(states, self.head, self.model.config.vocab_size)

    def _layer(self, layer: Layer) -> list[int]:
        """The fields of `Layer` in decode.cpp, without the cache."""
        norms: list[Tensor | None] = [layer.attention_norm.weight, layer.feed_forward_norm.weight]
        attention = layer.attention
        if isinstance(attention, LatentAttention):
            norms += [
                attention.q_norm.weight if attention.has_query_latent else None,
                attention.kv_norm.weight,
            ]
            matrices = self._latent(attention)
        else:
            norms += [norm.weight if norm else None for norm in (attention.q_norm, attention.k_norm)]
            matrices = [
                _NO_MATRIX, self._matrix(attention.q.weight), self._matrix(attention.kv.weight), _NO_MATRIX,
                _NO_MATRIX, self._matrix(attention.out.weight),
            ]  # fmt: skip
        self._widen(attention)
        fields = [*map(self._address, norms), *(number for matrix in matrices for number in matrix)]
        return fields + self._feed_forward(layer.feed_forward)

    def _latent(self, attention: LatentAttention) -> list[tuple[int, int, int]]:
        key_up, value_up = attention.absorbed_weights(torch.bfloat16)
        low = self._matrix(attention.q_a.weight) if attention.has_query_latent else _NO_MATRIX
        return [
            low, self._matrix(attention.q.weight), self._matrix(attention.kv_a.weight),
            self._matrix(*key_up.transpose(1, 2)), self._matrix(*value_up), self._matrix(attention.out.weight),
        ]  # fmt: skip

    def _widen(self, attention: GroupedQueryAttention | LatentAttention) -> None:
        """Scratch rows must hold every head's query, absorbed where there is a latent."""
        if isinstance(attention, LatentAttention):
            self.widest = max(self.widest, attention.num_heads * (attention.rank + attention.rope_size))
        else:
            self.widest = max(self.widest, attention.num_heads * attention.head_size)

    def _feed_forward(self, feed_forward: MixtureOfExperts | SwiGLU) -> list[int]:
        if isinstance(feed_forward, SwiGLU):
            inner = [self._matrix(feed_forward.gate_up.weight), self._matrix(feed_forward.down.weight)]
            return [0, 0, *(n for matrix in [*inner, _NO_MATRIX, _NO_MATRIX] for n in matrix), 0, 0]
        router, shared = feed_forward.router, feed_forward.shared
        matrices = [
            self._matrix(feed_forward.gate_up.flatten(0, 1)),
            self._matrix(feed_forward.down.transpose(0, 1).flatten(1)),
            self._matrix(shared.gate_up.weight) if shared else _NO_MATRIX,
            self._matrix(shared.down.weight) if shared else _NO_MATRIX,
        ]
        numbers = [number for matrix in matrices for number in matrix]
        bias = router.selection_bias
        own = [
            self._address(router.weight),
            self._address(torch.zeros(len(router.weight)) if bias is None else bias),
        ]
        return [*own, *numbers, router.weight.shape[0], router.num_chosen]

    def _matrix(self, *weights: Tensor) -> tuple[int, int, int]:
        """Address, inputs and outputs of weights [outputs, inputs], packed one behind the other."""
        outputs, inputs = weights[0].shape
        self.widest = max(self.widest, outputs, inputs)
        self.kept.append(pack(torch.stack(weights) if len(weights) > 1 else weights[0]))
        return self.kept[-1].data_ptr(), inputs, outputs

    def _address(self, vector: Tensor | None) -> int:
        if vector is None:
            return 0
        self.kept.append(vector.detach().float().contiguous())
        return self.kept[-1].data_ptr()


class _Plan:
    """Where `decode.cpp` finds a model, its layers and their caches, for tokens [B] at positions `where` [B]."""

    def __init__(self, decoder: FusedDecoder, caches: Sequence[Cache], tokens: Tensor, where: Tensor) -> None:
        model, length = decoder.model, caches[0][0].shape[1]
        self.rotary = tuple(part.float().contiguous() for part in model.rotary_for(length, tokens.device))
        assert tokens.dtype == where.dtype == torch.int64
        assert 0 <= int(where.min()) <= int(where.max()) < length
        assert all(kept.is_contiguous() and len(kept) == len(tokens) for cache in caches for kept in cache)
        config = model.config
        is_latent = config.is_latent
        head = config.head_size if not is_latent else (config.qk_nope_head_dim or 0) + config.rotary_dim
        numbers = [
            config.hidden_size, config.num_layers, is_latent, config.num_heads,
            config.num_heads if is_latent else config.kv_heads, head - config.rotary_dim, config.rotary_dim,
            config.v_head_dim or 0, config.kv_lora_rank or 0, length, model.embedding.weight.data_ptr(),
            decoder.norm, *(part.data_ptr() for part in self.rotary),
        ]  # fmt: skip
        places = [[*fields, *_addresses(cache)] for fields, cache in zip(decoder.layers, caches, strict=True)]
        first = model.layers[0]
        assert isinstance(first, Layer)
        latent_eps = first.attention.kv_norm.eps if isinstance(first.attention, LatentAttention) else 0.0
        constants = [config.rms_norm_eps, latent_eps, first.attention.scale, config.routed_scaling_factor]
        self.tensors = (
            torch.tensor(numbers, dtype=torch.int64),
            torch.tensor(places, dtype=torch.int64),
            torch.tensor(constants, dtype=torch.float32),
        )


def _addresses(cache: Cache) -> tuple[int, int]:
    return cache[0].data_ptr(), cache[-1].data_ptr()


def _has_kernels(config: ModelConfig) -> bool:
    """Whether `decode.cpp` knows every switch that is on."""
    unknown = (
        config.qkv_bias, config.out_bias, config.mlp_bias, config.sandwich_norm, config.sinks,
        config.layer_types, config.index_topk, config.value_scale != 1, config.qk_norm == "after_rotary",
        config.rotates_pairs != config.is_latent,
        config.rope_scaling is not None and config.rope_scaling.query_beta,
        not config.is_latent and not config.head_size == config.value_size == config.rotary_dim,
    )  # fmt: skip
    unknown_router = (
        config.router_scores != "sigmoid", not config.normalises_gates, config.gate_floor,
        config.has_router_bias, config.has_shared_gate, config.expert_bias, config.swiglu_limit,
    )  # fmt: skip
    return not any(unknown) and not (config.num_routed_experts and any(unknown_router))


def _is_fit(model: Decoder, dtype: torch.dtype) -> bool:
    config = model.config
    if not _has_kernels(config):
        return False
    sizes = [config.hidden_size, config.intermediate_size, config.moe_intermediate_size]
    if config.is_latent:
        nope, rope, value = config.qk_nope_head_dim or 0, config.rotary_dim, config.v_head_dim or 0
        sizes += [nope, rope, value, config.kv_lora_rank or 0, config.q_lora_rank or 0]
        head = nope + rope
    else:
        head = config.head_size
        sizes += [head]
    if head > MAX_HEAD or config.num_routed_experts > MAX_EXPERTS or config.num_expert_groups > 1:
        return False
    embedding = model.embedding.weight
    return embedding.dtype == torch.float32 and embedding.is_contiguous() and fits(dtype, embedding, *sizes)
