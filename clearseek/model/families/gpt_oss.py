"""gpt-oss (OpenAI): windows in every second layer, sinks in all, biases everywhere, clamped experts."""

from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig
from clearseek.model.families import sliding
from clearseek.model.families.family import GROUPED, SWITCHES, Family, Published


def read(published: Published, path: Path) -> dict[str, Any]:
    """Windows in the first layer and every second after it, unless there is a list."""
    count = published.get("num_hidden_layers")
    kinds = [sliding.KINDS[(i + 1) % 2] for i in range(min(count, 2**11))] if isinstance(count, int) else []
    return sliding.read_layer_types(published, path, kinds)


def write(config: ModelConfig) -> dict[str, Any]:
    """The list of layers."""
    kinds = [config.layer_type(index) for index in range(config.num_layers)]
    return {"layer_types": kinds, "sliding_window": config.sliding_window}


FAMILY = Family(
    name="gpt_oss",
    architecture="GptOssForCausalLM",
    keys=GROUPED
    | {
        "qkv_bias": "attention_bias",
        "out_bias": "attention_bias",
        "num_routed_experts": ("num_local_experts", "num_experts"),
        "num_experts_per_token": ("num_experts_per_tok", "experts_per_token"),
        "moe_intermediate_size": "intermediate_size",
        "swiglu_limit": "swiglu_limit",
        "swiglu_alpha": "swiglu_alpha",
    },
    implied={
        "sinks": sliding.KINDS,
        "router_scores": "softmax",
        "has_selection_bias": False,
        "has_router_bias": True,
        "expert_bias": True,
    },
    defaults={
        "attention_bias": True,
        "swiglu_limit": 7.0,
        "swiglu_alpha": 1.702,
        "head_dim": 64,
        "rms_norm_eps": 1e-5,
    },
    switches=SWITCHES,
    names={".mlp.gate.": ".mlp.router."},
    read=read,
    write=write,
    more=sliding.FIELDS,
    default_theta=150_000.0,
)
