"""DeepSeek-V3 and R1: latent attention, experts, and multi-token modules as layers beyond the last."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families.pieces import Piece, dense_pieces, layer_pieces, model_pieces, swiglu_pieces
from clearseek.model.families.published_config import COMMON, SWITCHES, check_switches, read_keys, write_keys

ARCHITECTURE = "DeepseekV3ForCausalLM"

_LATENT_SIZES = ("q_lora_rank", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_ATTENTION = {name: name for name in _LATENT_SIZES}
_EXPERTS = {
    "num_routed_experts": "n_routed_experts",
    "num_shared_experts": "n_shared_experts",
    "num_experts_per_token": "num_experts_per_tok",
    "moe_intermediate_size": "moe_intermediate_size",
    "num_dense_layers": "first_k_dense_replace",
    "num_expert_groups": "n_group",
    "num_limited_groups": "topk_group",
    "routed_scaling_factor": "routed_scaling_factor",
}
_MTP = {"num_mtp_layers": "num_nextn_predict_layers"}
_SWITCHES = SWITCHES | {
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "norm_topk_prob": True,
    "moe_layer_freq": 1,
    "rope_interleave": True,
}


def read_config(published: Mapping[str, Any], path: Path) -> ModelConfig:
    """Our config from a published one."""
    check_switches(published, _SWITCHES, path)
    heads, kv_heads = published.get("num_attention_heads"), published.get("num_key_value_heads")
    if kv_heads not in (None, heads):
        raise InputError(f"{path}: num_key_value_heads = {kv_heads} is not supported; only {heads}")
    keys = COMMON | _ATTENTION
    if published.get("n_routed_experts") != 0:
        keys |= _EXPERTS
    if "num_nextn_predict_layers" in published:
        keys |= _MTP
    return read_keys("deepseek_v3", published, keys, path)


def write_config(config: ModelConfig) -> dict[str, Any]:
    """The published config of ours; without experts every layer is one of the first, dense ones."""
    keys = write_keys(config, COMMON | _ATTENTION | _EXPERTS | _MTP)
    if not config.num_routed_experts:
        keys["first_k_dense_replace"] = config.num_layers + config.num_mtp_layers
    return {**keys, "num_key_value_heads": config.num_heads, **_SWITCHES}


def pieces(config: ModelConfig) -> Iterator[Piece]:
    """Every published tensor."""
    yield from model_pieces(config, _attention_pieces, _feed_forward_pieces)
    for depth in range(config.num_mtp_layers):
        yield from _mtp_pieces(config, depth)


def is_mtp(config: ModelConfig, published: str) -> bool:
    """Whether a published tensor belongs to multi-token prediction."""
    prefixes = tuple(f"{_mtp_prefix(config, depth)}." for depth in range(config.num_mtp_layers))
    return published.startswith(prefixes)


def _mtp_prefix(config: ModelConfig, depth: int) -> str:
    return f"model.layers.{config.num_layers + depth}"


def _attention_pieces(config: ModelConfig, number: int, published: str, ours: str) -> Iterator[Piece]:
    if config.q_lora_rank is None:
        yield Piece(f"{published}.q_proj.weight", f"{ours}.q.weight")
    else:
        yield Piece(f"{published}.q_a_proj.weight", f"{ours}.q_a.weight")
        yield Piece(f"{published}.q_a_layernorm.weight", f"{ours}.q_norm.weight")
        yield Piece(f"{published}.q_b_proj.weight", f"{ours}.q.weight")
    yield Piece(f"{published}.kv_a_proj_with_mqa.weight", f"{ours}.kv_a.weight")
    yield Piece(f"{published}.kv_a_layernorm.weight", f"{ours}.kv_norm.weight")
    yield Piece(f"{published}.kv_b_proj.weight", f"{ours}.kv_b.weight")
    yield Piece(f"{published}.o_proj.weight", f"{ours}.out.weight")


def _feed_forward_pieces(config: ModelConfig, number: int, published: str, ours: str) -> Iterator[Piece]:
    if not config.is_moe_layer(number):
        yield from dense_pieces(config, number, published, ours)
        return
    yield Piece(f"{published}.gate.weight", f"{ours}.router.weight")
    yield Piece(f"{published}.gate.e_score_correction_bias", f"{ours}.router.selection_bias")
    width = config.moe_intermediate_size
    for expert in range(config.num_routed_experts):
        yield from swiglu_pieces(
            f"{published}.experts.{expert}", f"{ours}.gate_up", f"{ours}.down", width, (expert,)
        )
    if config.num_shared_experts:
        shared = f"{ours}.shared"
        yield from swiglu_pieces(
            f"{published}.shared_experts",
            f"{shared}.gate_up.weight",
            f"{shared}.down.weight",
            width * config.num_shared_experts,
        )


def _mtp_pieces(config: ModelConfig, depth: int) -> Iterator[Piece]:
    published, ours = _mtp_prefix(config, depth), f"mtp.{depth}"
    head = "embedding.weight" if config.tie_word_embeddings else "head.weight"
    yield Piece(f"{published}.embed_tokens.weight", "embedding.weight", kind="copy")
    yield Piece(f"{published}.enorm.weight", f"{ours}.embedding_norm.weight")
    yield Piece(f"{published}.hnorm.weight", f"{ours}.state_norm.weight")
    yield Piece(f"{published}.eh_proj.weight", f"{ours}.join.weight")
    number, layer = config.num_layers + depth, f"{ours}.layer"
    yield from layer_pieces(config, number, published, layer, _attention_pieces, _feed_forward_pieces)
    yield Piece(f"{published}.shared_head.norm.weight", f"{ours}.norm.weight")
    yield Piece(f"{published}.shared_head.head.weight", head, kind="copy")
