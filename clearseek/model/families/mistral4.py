"""Mistral 4: DeepSeek's latent attention and experts under a softmax router; queries grow with the position."""

from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families import deepseek_v3 as v3
from clearseek.model.families.family import LATENT, SWITCHES, Family, Published


def read(published: Published, path: Path) -> dict[str, Any]:
    """As DeepSeek-V3; a file that says nothing of rotary means a stretch of 128 elsewhere, which is asked for."""
    if not any(published.get(key) for key in ("rope_parameters", "rope_scaling", "rope_theta")):
        raise InputError(f"{path}: rope_parameters missing; a mistral4 config.json has to give them")
    return v3.read(published, path)


def write(config: ModelConfig) -> dict[str, Any]:
    """The newer layout of rotary too, where alone the growth of queries is read."""
    nope, rope = config.qk_nope_head_dim or 0, config.qk_rope_head_dim or 0
    share = {"partial_rotary_factor": rope / (nope + rope)}
    return v3.write(config) | share


FAMILY = Family(
    name="mistral4",
    architecture="Mistral4ForCausalLM",
    keys=LATENT | v3.BIASES | v3.EXPERTS | {"rotates_pairs": "rope_interleave"},
    implied={"router_scores": "softmax", "has_selection_bias": False},
    defaults={
        "attention_bias": False,
        "rope_interleave": True,
        "n_group": 1,
        "topk_group": 1,
        "n_shared_experts": 0,
        "first_k_dense_replace": 0,
        "routed_scaling_factor": 1.0,
    },
    switches=SWITCHES | {"norm_topk_prob": True},
    stacks_experts=True,
    read=read,
    write=write,
)
