"""ERNIE 4.5 with experts (Baidu): softmax-routed under a selection bias, beside shared ones."""

import itertools
from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig
from clearseek.model.families.family import GROUPED, SWITCHES, Family, Published
from clearseek.model.families.published_config import dense_fields

_SPAN = ("moe_layer_start_index", "moe_layer_end_index", "moe_layer_interval")


def read(published: Published, path: Path) -> dict[str, Any]:
    """Dense layers: outside the span of sparse ones, and between them."""
    given = published.get("num_hidden_layers"), *(published.get(key) for key in _SPAN)
    numbers = [
        default if number is None else number for number, default in zip(given, (0, 1, -1, 1), strict=True)
    ]
    if not all(isinstance(number, int) for number in numbers) or not numbers[-1]:
        return {}
    count, start, end, step = numbers
    last = count - 1 if end == -1 else end
    dense = [i for i in range(min(count, 2**11)) if not start <= i <= last or (i + 1) % step]
    return dense_fields(dense)


def write(config: ModelConfig) -> dict[str, Any]:
    """The span of sparse layers that says the same."""
    sparse = [index for index in range(config.num_layers) if config.is_moe_layer(index)]
    step = next((b - a for a, b in itertools.pairwise(sparse)), 1)
    return dict(zip(_SPAN, (sparse[0], sparse[-1], step), strict=True)) if sparse else {}


FAMILY = Family(
    name="ernie4_5_moe",
    architecture="Ernie4_5_MoeForCausalLM",
    keys=GROUPED
    | {
        "num_routed_experts": ("moe_num_experts", "num_experts"),
        "num_shared_experts": "moe_num_shared_experts",
        "num_experts_per_token": ("moe_k", "num_experts_per_tok"),
        "moe_intermediate_size": "moe_intermediate_size",
        "gate_floor": "moe_norm_min",
        "num_mtp_layers": "num_nextn_predict_layers",
    },
    implied={"rotates_pairs": True, "router_scores": "softmax", "mtp_kind": "ernie"},
    defaults={
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-5,
        "moe_norm_min": 1e-12,
        "moe_num_shared_experts": 0,
        "num_nextn_predict_layers": 0,
    },
    switches=SWITCHES | {"use_bias": False},
    names={".mlp.gate.e_score_correction_bias": ".mlp.moe_statics.e_score_correction_bias"},
    rows=(".e_score_correction_bias",),
    read=read,
    write=write,
    more=frozenset({"num_dense_layers", "dense_layers"}),
    default_theta=500_000.0,
)
