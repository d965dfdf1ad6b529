"""Llama 1 to 3 and R1-Distill-Llama: grouped-query attention and a dense feed-forward."""

from clearseek.model.families.family import GROUPED, Family

FAMILY = Family(
    name="llama",
    architecture="LlamaForCausalLM",
    keys=GROUPED | {"qkv_bias": "attention_bias", "out_bias": "attention_bias", "mlp_bias": "mlp_bias"},
    defaults={"attention_bias": False, "mlp_bias": False},
)
