"""A published checkpoint's tensors as pieces of our parameters, under canonical names that families rename.

The canonical names are Llama's, and DeepSeek's where Llama has none.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from clearseek.config.model import ModelConfig
from clearseek.model.families.family import Family

Index = tuple[int | slice | None, ...]
Layout = Literal["plain", "transposed", "interleaved", "interleaved_bias"]

# by kind of multi-token module: the norms of embedding and state, the map that joins them, the norm after its layer
_MTP_NAMES = {
    "deepseek": ("enorm", "hnorm", "eh_proj", "shared_head.norm"),
    "mimo": ("token_layernorm", "hidden_layernorm", "input_proj", "final_layernorm"),
    "mimo_v2": ("enorm", "hnorm", "eh_proj", "final_layernorm"),
    "hy_v3": ("enorm", "hnorm", "eh_proj", "final_layernorm"),
    "ernie": ("mtp_emb_norm", "mtp_hidden_norm", "mtp_linear_proj", ""),
}


@dataclass(frozen=True, slots=True)
class Piece:
    """One published tensor, and where it lies in one of ours.

    An `own` piece carries weights. A `copy` repeats another's, because the published format does; an `alias`
    is such a copy that others write and we don't. Both may be absent, and must be equal where present.
    `interleaved` pieces are gpt-oss's: [E, in, out], with gate and up taking turns in the last dimension.
    """

    published: str
    ours: str
    index: Index = ()
    kind: Literal["own", "copy", "alias"] = "own"
    layout: Layout = "plain"

    def of(self, tensor: Tensor) -> Tensor:
        """The view of our tensor that the published one holds; one dimension more where interleaved."""
        if self.layout == "transposed":
            return tensor.transpose(-1, -2)
        if self.layout == "interleaved":  # ours [E, 2 · I, H]
            return tensor.unflatten(1, (2, -1)).permute(0, 3, 2, 1)
        if self.layout == "interleaved_bias":  # ours [E, 2 · I]
            return tensor.unflatten(1, (2, -1)).transpose(1, 2)
        return tensor[self.index]

    def published_shape(self, view: Tensor) -> list[int]:
        """The shape of the published tensor that `view`, made by `of`, holds."""
        shape = list(view.shape)
        return [*shape[:-2], shape[-2] * shape[-1]] if self.layout.startswith("interleaved") else shape


def pieces(config: ModelConfig, family: Family) -> Iterator[Piece]:
    """Every tensor of the published checkpoint, each once, in the published order."""
    for piece in _canonical(config, family.stacks_experts):
        name = piece.published
        for ours, theirs in family.names.items():
            name = name.replace(ours, theirs)
        is_row = name.endswith(family.rows) if family.rows else False
        yield replace(piece, published=name, index=(None,) if is_row else piece.index)


def _canonical(config: ModelConfig, stacks: bool) -> Iterator[Piece]:
    yield Piece("model.embed_tokens.weight", "embedding.weight")
    for number in range(config.num_layers):
        yield from _layer(config, number, f"model.layers.{number}", f"layers.{number}", stacks)
    for depth in range(config.num_mtp_layers):
        yield from _mtp(config, depth)
    yield Piece("model.norm.weight", "norm.weight")
    if config.tie_word_embeddings:
        yield Piece("lm_head.weight", "embedding.weight", kind="alias")
    else:
        yield Piece("lm_head.weight", "head.weight")


def mtp_prefix(config: ModelConfig, depth: int) -> str:
    """What the published names of a multi-token module's layer begin with."""
    if config.mtp_kind == "ernie":
        return f"model.mtp_block.{depth}"
    if config.mtp_kind in ("mimo", "mimo_v2"):
        return f"model.{'mtp_layers' if config.mtp_kind == 'mimo' else 'mtp.layers'}.{depth}"
    return f"model.layers.{config.num_layers + depth}"


def _mtp(config: ModelConfig, depth: int) -> Iterator[Piece]:
    published, ours = mtp_prefix(config, depth), f"mtp.{depth}"
    embedding_norm, state_norm, join, norm = (
        f"model.{name}.{depth}" if config.mtp_kind == "ernie" else f"{published}.{name}"
        for name in _MTP_NAMES[config.mtp_kind]
    )
    repeats = config.mtp_kind == "deepseek"
    if repeats:
        yield Piece(f"{published}.embed_tokens.weight", "embedding.weight", kind="copy")
    yield Piece(f"{embedding_norm}.weight", f"{ours}.embedding_norm.weight")
    yield Piece(f"{state_norm}.weight", f"{ours}.state_norm.weight")
    yield Piece(f"{join}.weight", f"{ours}.join.weight")
    for piece in _layer(config, config.num_layers + depth, published, f"{ours}.layer"):
        is_named_so = config.mtp_kind == "mimo_v2" and piece.ours.endswith(".feed_forward_norm.weight")
        yield replace(piece, published=f"{published}.pre_mlp_layernorm.weight") if is_named_so else piece
    if not config.mtp_shares_norm:
        yield Piece(f"{norm}.weight", f"{ours}.norm.weight")
    if repeats:
        head = "embedding.weight" if config.tie_word_embeddings else "head.weight"
        yield Piece(f"{published}.shared_head.head.weight", head, kind="copy")


def _layer(
    config: ModelConfig, number: int, published: str, ours: str, stacks: bool = False
) -> Iterator[Piece]:
    """One layer, published under the prefix `published`, ours under `ours`."""
    yield Piece(f"{published}.input_layernorm.weight", f"{ours}.attention_norm.weight")
    attention = _latent if config.is_latent else _grouped
    yield from attention(config, number, f"{published}.self_attn", f"{ours}.attention")
    if config.sandwich_norm:
        yield Piece(f"{published}.post_attention_layernorm.weight", f"{ours}.mixed_norm.weight")
        yield Piece(f"{published}.pre_mlp_layernorm.weight", f"{ours}.feed_forward_norm.weight")
        yield Piece(f"{published}.post_mlp_layernorm.weight", f"{ours}.fed_norm.weight")
    else:
        yield Piece(f"{published}.post_attention_layernorm.weight", f"{ours}.feed_forward_norm.weight")
    published, ours = f"{published}.mlp", f"{ours}.feed_forward"
    if config.is_moe_layer(number):
        yield from _experts(config, published, ours, stacks)
    else:
        yield from _swiglu(published, ours, config.intermediate_size, config.mlp_bias)


def _grouped(config: ModelConfig, number: int, published: str, ours: str) -> Iterator[Piece]:
    """Grouped-query attention: we keep the keys' and values' maps as one."""
    layer_type = config.layer_type(number)
    heads = config.kv_heads_of(layer_type)
    keys = heads * config.head_size
    both = keys + heads * config.value_size
    for kind in ("weight", "bias") if config.qkv_bias else ("weight",):
        yield Piece(f"{published}.q_proj.{kind}", f"{ours}.q.{kind}")
        yield Piece(f"{published}.k_proj.{kind}", f"{ours}.kv.{kind}", (slice(0, keys),))
        yield Piece(f"{published}.v_proj.{kind}", f"{ours}.kv.{kind}", (slice(keys, both),))
    yield from _linear(f"{published}.o_proj", f"{ours}.out", config.out_bias)
    if config.qk_norm != "none":
        yield Piece(f"{published}.q_norm.weight", f"{ours}.q_norm.weight")
        yield Piece(f"{published}.k_norm.weight", f"{ours}.k_norm.weight")
    if layer_type in config.sinks:
        yield Piece(f"{published}.sinks", f"{ours}.sinks")


def _latent(config: ModelConfig, number: int, published: str, ours: str) -> Iterator[Piece]:
    if config.q_lora_rank is None:
        yield Piece(f"{published}.q_proj.weight", f"{ours}.q.weight")
    else:
        yield from _linear(f"{published}.q_a_proj", f"{ours}.q_a", config.qkv_bias)
        yield Piece(f"{published}.q_a_layernorm.weight", f"{ours}.q_norm.weight")
        yield Piece(f"{published}.q_b_proj.weight", f"{ours}.q.weight")
    yield from _linear(f"{published}.kv_a_proj_with_mqa", f"{ours}.kv_a", config.qkv_bias)
    yield Piece(f"{published}.kv_a_layernorm.weight", f"{ours}.kv_norm.weight")
    yield Piece(f"{published}.kv_b_proj.weight", f"{ours}.kv_b.weight")
    yield from _linear(f"{published}.o_proj", f"{ours}.out", config.out_bias)
    if config.index_topk:
        published, ours = f"{published}.indexer", f"{ours}.indexer"
        yield Piece(f"{published}.wq_b.weight", f"{ours}.q.weight")
        yield Piece(f"{published}.wk.weight", f"{ours}.k.weight")
        yield from _linear(f"{published}.k_norm", f"{ours}.k_norm", True)
        yield Piece(f"{published}.weights_proj.weight", f"{ours}.weights.weight")


def _linear(published: str, ours: str, bias: bool) -> Iterator[Piece]:
    yield Piece(f"{published}.weight", f"{ours}.weight")
    if bias:
        yield Piece(f"{published}.bias", f"{ours}.bias")


def _experts(config: ModelConfig, published: str, ours: str, stacks: bool) -> Iterator[Piece]:
    yield Piece(f"{published}.gate.weight", f"{ours}.router.weight")
    if config.has_router_bias:
        yield Piece(f"{published}.gate.bias", f"{ours}.router.bias")
    if config.has_selection_bias:
        yield Piece(f"{published}.gate.e_score_correction_bias", f"{ours}.router.selection_bias")
    if config.expert_bias:
        yield from _stacked_with_bias(f"{published}.experts", ours)
    elif stacks:
        yield Piece(f"{published}.experts.gate_up_proj", f"{ours}.gate_up")
        yield Piece(f"{published}.experts.down_proj", f"{ours}.down")
    else:
        width = config.moe_intermediate_size
        for expert in range(config.num_routed_experts):
            names = f"{published}.experts.{expert}", f"{ours}.gate_up", f"{ours}.down"
            yield from _gate_up_down(*names, width, (expert,))
    if config.shared_size:
        shared = f"{published}.shared_experts"
        yield from _swiglu(shared, f"{ours}.shared", config.shared_size, config.mlp_bias)
    if config.has_shared_gate:
        yield Piece(f"{published}.shared_expert_gate.weight", f"{ours}.shared_gate.weight")


def _stacked_with_bias(published: str, ours: str) -> Iterator[Piece]:
    """gpt-oss's experts."""
    yield Piece(f"{published}.gate_up_proj", f"{ours}.gate_up", layout="interleaved")
    yield Piece(f"{published}.gate_up_proj_bias", f"{ours}.gate_up_bias", layout="interleaved_bias")
    yield Piece(f"{published}.down_proj", f"{ours}.down", layout="transposed")
    yield Piece(f"{published}.down_proj_bias", f"{ours}.down_bias")


def _swiglu(published: str, ours: str, width: int, bias: bool) -> Iterator[Piece]:
    for kind in ("weight", "bias") if bias else ("weight",):
        names = f"{ours}.gate_up.{kind}", f"{ours}.down.{kind}"
        yield from _gate_up_down(published, *names, width, (), kind)


def _gate_up_down(
    published: str, gate_up: str, down: str, width: int, index: Index, kind: str = "weight"
) -> Iterator[Piece]:
    """Gate, up and down of one SwiGLU of `width`; `index` is its place in stacked experts."""
    yield Piece(f"{published}.gate_proj.{kind}", gate_up, (*index, slice(0, width)))
    yield Piece(f"{published}.up_proj.{kind}", gate_up, (*index, slice(width, 2 * width)))
    yield Piece(f"{published}.down_proj.{kind}", down, index)
