"""A published config as the keys of a GGUF file, and back.

What a row of `architectures` can't say is here: latent attention, which llama.cpp sees as one key head, stretched
rotary frequencies, and what other implementations would take for granted.
"""

from collections.abc import Mapping
from typing import Any

from clearseek.config.errors import InputError
from clearseek.model.gguf.architectures import ARCHITECTURES, Architecture, architecture_of
from clearseek.model.gguf.header import GgufFile
from clearseek.model.gguf.layers import layer_keys, read_layers
from clearseek.model.gguf.rope import head_size, read_rope, rope_keys

_GATING = {"softmax": 1, "sigmoid": 2}
_LEAST_INDEX_HEAD = 64  # it turns index heads by a Hadamard matrix
_MOST_LAYERS = 2**11
# of families whose experts' gates sum to one: what scores them
_ROUTERS = {"deepseek_v3": "sigmoid", "deepseek_v32": "sigmoid", "hy_v3": "sigmoid", "mistral4": "softmax"}
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
        values = published.get("v_head_dim") or size
        keys |= {"attention.key_length": size, "attention.value_length": values, "rope.dimension_count": size}
    keys |= _family_keys(published) | layer_keys(published)
    keys["context_length"] = min(keys["context_length"], window_of(published) or keys["context_length"])
    return keys | rope_keys(published)


def _family_keys(published: Mapping[str, Any]) -> dict[str, Any]:
    """What some families leave to their code: how wide experts and shared ones are, and where sparse layers end."""
    if published["model_type"] == "gpt_oss":
        return {"expert_feed_forward_length": published["intermediate_size"]}
    if published["model_type"] == "hy_v3":
        _check_shared(published["num_shared_experts"])
        shared = published["num_shared_experts"] * published["moe_intermediate_size"]
        router = {"expert_gating_func": _GATING["sigmoid"], "expert_weights_norm": True}
        return {"expert_shared_feed_forward_length": shared, **router}
    if published["model_type"] == "mimo_v2_flash":
        return _groups(published)
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
    if is_switched_off or architecture_of(published["model_type"]).has_windows:
        return None
    return published.get("sliding_window")


def _check_granted(published: Mapping[str, Any], architecture: Architecture) -> None:
    """Raise InputError for a setting that llama.cpp would not follow."""
    for name, setting in architecture.granted.items():
        found = published.get(name)
        if (bool(found) if isinstance(setting, bool) else found) != setting:
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
    if has_experts and family in _ROUTERS:
        _check_router(file, family, keys)
    published.setdefault("vocab_size", len(file.metadata.get("tokenizer.ggml.tokens", ())))
    if "kv_lora_rank" in published:
        published |= _read_latent(file, keys)
    published |= _without_mtp(file, published)
    architecture = ARCHITECTURES[family]
    biases = {key: tensor in file.tensors for key, tensor in architecture.bias_keys.items()}
    return {
        "model_type": family,
        **architecture.granted,
        **biases,
        **_of_family(family, published, keys),
        **read_layers(file, family, keys, _bounded(published.get("num_hidden_layers"))),
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **read_rope(file, keys),
    }


def _check_router(file: GgufFile, family: str, keys: Mapping[str, Any]) -> None:
    """Raise InputError where a file's experts are chosen otherwise than the family's."""
    scores = _GATING[_ROUTERS[family]]
    found = keys.get("expert_gating_func", scores), keys.get("expert_weights_norm", False)
    if found != (scores, True):
        raise InputError(
            f"{file.path}: expert_gating_func = {found[0]!r} with expert_weights_norm = {found[1]!r} is not supported; "
            f"a model of {file.architecture} has {scores} with True"
        )


def mtp_layers(file: GgufFile) -> int:
    """Multi-token modules of a file, which lie as layers beyond the last; InputError where that is no number."""
    count = file.metadata.get(f"{file.architecture}.nextn_predict_layers", 0)
    layers = file.metadata.get(f"{file.architecture}.block_count")
    if not isinstance(count, int) or not 0 <= count <= (layers if isinstance(layers, int) else 0):
        raise InputError(
            f"{file.path}: nextn_predict_layers = {count!r} has to be a number up to block_count"
        )
    return count


def _without_mtp(file: GgufFile, published: Mapping[str, Any]) -> dict[str, Any]:
    count = mtp_layers(file)
    return {"num_hidden_layers": published["num_hidden_layers"] - count} if count else {}


def _bounded(count: Any) -> int:
    """A number of layers to look through; one that no model has is refused later."""
    return max(0, min(count, _MOST_LAYERS)) if isinstance(count, int) else 0


def _of_family(family: str, published: dict[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a family that have no key in GGUF, since llama.cpp knows them otherwise."""
    if family == "hy_v3":
        return {**published, "num_shared_experts": _shared_experts(published, keys)}
    if family == "ernie4_5_moe":
        return {**published, "moe_layer_end_index": -1}
    if family == "hunyuan_v1_moe":
        return {**published, "use_mixed_mlp_moe": True}
    return published


def _shared_experts(published: Mapping[str, Any], keys: Mapping[str, Any]) -> int:
    """How many as wide as the others their width is; one where the file does not say it, as in llama.cpp."""
    shared, width = keys.get("expert_shared_feed_forward_length"), published.get("moe_intermediate_size")
    if not isinstance(shared, int) or not isinstance(width, int) or width < 1:
        return 1
    return shared // width


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
    if "index_head_dim" in published:
        _check_indexer(published["index_head_dim"])
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
    _check_shared(published["n_shared_experts"])
    # Mistral 4's config does not name its softmax
    return (
        keys | _groups(published) | {"expert_gating_func": _GATING[published.get("scoring_func", "softmax")]}
    )


def _groups(published: Mapping[str, Any]) -> dict[str, Any]:
    """One group where all may be chosen from, as llama.cpp wants to hear it; nothing otherwise."""
    is_free = published.get("n_group", 1) == published.get("topk_group", 1)
    return {"expert_group_count": 1, "expert_group_used_count": 1} if is_free else {}


def _check_shared(count: int) -> None:
    if not count:
        raise InputError(
            "a model without shared experts can't be written as GGUF: llama.cpp's architecture of this family has "
            "them always. Use --to hf"
        )


def _check_indexer(size: int) -> None:
    if size < _LEAST_INDEX_HEAD or size & (size - 1):
        raise InputError(
            f"index_head_dim = {size} can't be written as GGUF: llama.cpp wants a power of two from "
            f"{_LEAST_INDEX_HEAD} on. Use --to hf"
        )


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
