"""Qwen3-MoE (30B-A3B, 235B-A22B): Qwen3 with softmax-routed experts and none that is shared."""

from clearseek.model.families.family import GROUPED, SWITCHES, Family
from clearseek.model.families.qwen2_moe import EXPERTS, read_dense, write_dense

FAMILY = Family(
    name="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    keys=GROUPED | EXPERTS | {"qkv_bias": "attention_bias", "out_bias": "attention_bias"},
    implied={"qk_norm": "before_rotary", "router_scores": "softmax", "has_selection_bias": False},
    defaults={"attention_bias": False, "norm_topk_prob": False},
    switches=SWITCHES | {"use_sliding_window": False},
    read=read_dense,
    write=write_dense,
    more=frozenset({"num_dense_layers", "dense_layers"}),
)
