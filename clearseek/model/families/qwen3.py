"""Qwen3: grouped-query attention with a norm on every query and key head, and a dense feed-forward."""

from clearseek.model.families import sliding
from clearseek.model.families.family import GROUPED, Family

FAMILY = Family(
    name="qwen3",
    architecture="Qwen3ForCausalLM",
    keys=GROUPED | {"qkv_bias": "attention_bias", "out_bias": "attention_bias"},
    implied={"qk_norm": "before_rotary"},
    defaults={"attention_bias": False, "head_dim": 128},
    read=sliding.read_switched,
    write=sliding.write_switched,
    more=sliding.FIELDS,
)
