"""A published config as the keys of a GGUF file, and back.

What a row of `architectures` can't say is here: latent attention, which llama.cpp sees as one key head, stretched
rotary frequencies, and what other implementations would take for granted.
"""

from collections.abc import Mapping
from typing import Any

from clearseek.config.errors import InputError
from clearseek.model.gguf.architectures import ARCHITECTURES, Architecture, architecture_of
from clearseek.model.gguf.header import GgufFile
from clearseek.model.gguf.rope import head_size, read_rope, rope_keys

_GATING = {"softmax": 1, "sigmoid": 2}
_FLAGS = frozenset({"norm_topk_prob"})
# without experts these are there to be zero, or to please llama.cpp
_OF_EXPERTS = frozenset({"n_group", "topk_group", "num_experts_per_tok", "moe_intermediate_size"})


def config_keys(published: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF's keys, without the architecture in front, of a config.json's content.

    Raises InputError where llama.cpp would compute something else.
    """
    architecture = architecture_of(published["model_type"])
    _check_granted(published, architecture)
    keys = {
        key: published[name]
        for name, key in architecture.keys.items()
        if published.get(name) is not None and (name not in _FLAGS or published[name])
    }
    if "kv_lora_rank" in published:
        keys |= _latent_keys(published)
    else:
        size = head_size(published)
        keys |= {"attention.key_length": size, "attention.value_length": size, "rope.dimension_count": size}
    keys |= _family_keys(published)
    keys["context_length"] = min(keys["context_length"], window_of(published) or keys["context_length"])
    return keys | rope_keys(published)


def _family_keys(published: Mapping[str, Any]) -> dict[str, Any]:
    """What two families leave to their code: how wide experts and shared ones are, and where sparse layers end."""
    if published["model_type"] == "hunyuan_v1_moe":
        width = published["intermediate_size"]
        return {"expert_feed_forward_length": width, "expert_shared_feed_forward_length": width}
    if published["model_type"] == "ernie4_5_moe":
        last = published["moe_layer_end_index"]
        if published["moe_layer_interval"] != 1 or last not in (-1, published["num_hidden_layers"] - 1):
            raise InputError(
                "moe_layer_interval and moe_layer_end_index can't be written as GGUF: llama.cpp takes all layers from "
                "moe_layer_start_index on for sparse. Use --to hf"
            )
        shared = published["moe_num_shared_experts"] * published["moe_intermediate_size"]
        return {"expert_shared_feed_forward_length": shared}
    return {}


def window_of(published: Mapping[str, Any]) -> int | None:
    """The sliding window that llama.cpp leaves out: within it both compute the same."""
    is_switched_off = published.get("use_sliding_window") is False
    return None if is_switched_off else published.get("sliding_window")


def _check_granted(published: Mapping[str, Any], architecture: Architecture) -> None:
    """Raise InputError for a setting that llama.cpp would not follow."""
    for name, setting in architecture.granted.items():
        if bool(published.get(name)) != setting:
            raise InputError(
                f"{name} = {published.get(name)!r} can't be written as GGUF: llama.cpp's {architecture.name} takes "
                f"{setting} for granted. Use --to hf"
            )
    groups = published.get("n_group", 1), published.get("topk_group", 1)
    if published.get("topk_method") == "group_limited_greedy" and groups[0] != groups[1]:
        raise InputError(
            "topk_method = 'group_limited_greedy' can't be written as GGUF: llama.cpp scores a group of experts by its "
            "two best, not by its best. Use --to hf"
        )


def published_config(file: GgufFile) -> dict[str, Any]:
    """A config.json's content from the metadata of a GGUF file; raises InputError for an unknown architecture."""
    family = _family(file)
    has_experts = bool(file.metadata.get(f"{file.architecture}.expert_count"))
    prefix = f"{file.architecture}."
    keys = {key.removeprefix(prefix): value for key, value in file.metadata.items() if key.startswith(prefix)}
    published = {
        name: keys[key]
        for name, key in ARCHITECTURES[family].keys.items()
        if keys.get(key) is not None and (has_experts or name not in _OF_EXPERTS)
    }
    published.setdefault("vocab_size", len(file.metadata.get("tokenizer.ggml.tokens", ())))
    if "kv_lora_rank" in published:
        published |= _read_latent(file, keys)
    architecture = ARCHITECTURES[family]
    biases = {key: tensor in file.tensors for key, tensor in architecture.bias_keys.items()}
    return {
        "model_type": family,
        **architecture.granted,
        **biases,
        **_of_family(family, published),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **read_rope(file, keys),
    }


def _of_family(family: str, published: dict[str, Any]) -> dict[str, Any]:
    """The keys of a family that have no key in GGUF, since llama.cpp knows them otherwise."""
    if family == "ernie4_5_moe":
        return {**published, "moe_layer_end_index": -1}
    if family == "hunyuan_v1_moe":
        return {**published, "use_mixed_mlp_moe": True}
    return published


def _family(file: GgufFile) -> str:
    """The family that a file's architecture is; llama.cpp has one name for several."""
    name = file.architecture
    if name == "llama":
        return "mixtral" if file.metadata.get("llama.expert_count") else "llama"
    if name == "deepseek2":
        is_v3 = file.metadata.get("deepseek2.expert_gating_func") == _GATING["sigmoid"]
        has_experts = file.metadata.get("deepseek2.expert_count")
        return "deepseek_v3" if is_v3 or not has_experts else "deepseek_v2"
    for family, architecture in ARCHITECTURES.items():
        if architecture.name == name:
            return family
    known = ", ".join(sorted({architecture.name for architecture in ARCHITECTURES.values()}))
    raise InputError(f"{file.path}: architecture {name!r} is not supported; known ones: {known}")


def _latent_keys(published: Mapping[str, Any]) -> dict[str, Any]:
    """Latent attention as llama.cpp computes it: one key head that is the latent and the rotary key together."""
    rope, rank = published["qk_rope_head_dim"], published["kv_lora_rank"]
    keys = {
        "attention.head_count_kv": 1,
        "attention.key_length": rank + rope,
        "attention.value_length": rank,
        "attention.key_length_mla": published["qk_nope_head_dim"] + rope,
        "leading_dense_block_count": min(published["first_k_dense_replace"], published["num_hidden_layers"]),
    }
    if not published.get("n_routed_experts"):  # none may be grouped or chosen, yet their width has to be said
        return keys | {
            "expert_feed_forward_length": published["intermediate_size"],
            "expert_used_count": 0,
            "expert_group_count": 0,
            "expert_group_used_count": 0,
        }
    groups = published.get("n_group", 1), published.get("topk_group", 1)
    if groups[0] == groups[1]:  # all may be chosen from, which llama.cpp wants to hear as one group
        keys |= {"expert_group_count": 1, "expert_group_used_count": 1}
    return keys | {"expert_gating_func": _GATING[published["scoring_func"]]}


def _read_latent(file: GgufFile, keys: Mapping[str, Any]) -> dict[str, Any]:
    rope, both = keys.get("rope.dimension_count"), keys.get("attention.key_length_mla")
    if not isinstance(rope, int) or not isinstance(both, int) or both <= rope:
        raise InputError(
            f"{file.path}: attention.key_length_mla ({both}) must be above rope.dimension_count ({rope}); files from "
            "before latent attention was absorbed are not supported, convert the model again"
        )
    latent: dict[str, Any] = {
        "qk_nope_head_dim": both - rope,
        "q_lora_rank": keys.get("attention.q_lora_rank"),
    }
    if not keys.get("expert_count"):
        latent |= dict.fromkeys(("n_routed_experts", "num_experts_per_tok", "moe_intermediate_size"), 0)
    return latent
