"""What some families say layer by layer: which layers see a window, how many heads of keys each has, which are sparse.

llama.cpp reads which are sparse from the tensors that are there, so that a file has no key for it.
"""

from collections.abc import Mapping
from typing import Any

from clearseek.config.errors import InputError
from clearseek.model.families.sliding import KINDS
from clearseek.model.gguf.header import GgufFile

_PATTERN = "attention.sliding_window_pattern"
_HEADS = "attention.head_count_kv"
_BY_TENSORS = ("hy_v3", "mimo_v2_flash")


def layer_keys(published: Mapping[str, Any]) -> dict[str, Any]:
    """GGUF's keys of what differs between a published config's layers; raises InputError for what it can't say."""
    family = published["model_type"]
    if family == "deepseek_v32":
        _check_dense_first(published)
    if family not in ("gpt_oss", "mimo_v2_flash"):
        return {}
    slides = [int(kind == KINDS[1]) for kind in published["layer_types"]]
    window = published["sliding_window"] or published["max_position_embeddings"]
    keys: dict[str, Any] = {_PATTERN: slides, "attention.sliding_window": window}
    if family == "mimo_v2_flash":
        keys[_HEADS] = [published["num_key_value_heads"] * (1 + slide) for slide in slides]
    return keys


def _check_dense_first(published: Mapping[str, Any]) -> None:
    kinds = published["mlp_layer_types"]
    first = published["first_k_dense_replace"]
    if kinds != [("sparse", "dense")[index < first] for index in range(len(kinds))]:
        raise InputError(
            "mlp_layer_types can't be written as GGUF: llama.cpp's deepseek32 takes all layers from "
            "first_k_dense_replace on for sparse. Use --to hf"
        )


def read_layers(file: GgufFile, family: str, keys: Mapping[str, Any], count: int) -> dict[str, Any]:
    """The published keys of what differs between a file's `count` layers; raises InputError for what can't be."""
    found: dict[str, Any] = {}
    if family in _BY_TENSORS:
        sparse = [f"blk.{index}.ffn_gate_inp.weight" in file.tensors for index in range(count)]
        found["mlp_layer_types"] = [("dense", "sparse")[is_sparse] for is_sparse in sparse]
    if family not in ("gpt_oss", "mimo_v2_flash"):
        return found
    if _PATTERN not in keys and family == "gpt_oss":  # every second one, from the first on
        return found
    slides = _numbers(file, keys, _PATTERN, count)
    found["layer_types"] = [KINDS[bool(slide)] for slide in slides]
    if family == "mimo_v2_flash":
        found["num_key_value_heads"] = _full_heads(file, _numbers(file, keys, _HEADS, count), slides)
    return found


def _full_heads(file: GgufFile, heads: list[int], slides: list[int]) -> int:
    """Heads of keys in layers that see everything; those that see a window have twice as many."""
    if not heads:
        raise InputError(
            f"{file.path}: no layers are left beside the multi-token ones, which count among block_count"
        )
    fulls = {count // (1 + slide) for count, slide in zip(heads, slides, strict=True)}
    full = fulls.pop()
    if fulls or any(count != full * (1 + slide) for count, slide in zip(heads, slides, strict=True)):
        raise InputError(
            f"{file.path}: {_HEADS} {heads} is not supported; only one number for layers that see everything, and "
            "twice as many for those that see a window"
        )
    return full


def _numbers(file: GgufFile, keys: Mapping[str, Any], name: str, count: int) -> list[int]:
    """A list with a number for each layer; multi-token ones, which follow, are left out."""
    values = keys.get(name)
    if not isinstance(values, list) or len(values) < count or not all(isinstance(v, int) for v in values):
        raise InputError(f"{file.path}: {name} = {values!r} has to be a list with a number for each layer")
    return [int(value) for value in values[:count]]
