"""Qwen2, Qwen2.5 and R1-Distill-Qwen: Llama with biases on queries, keys and values."""

from clearseek.model.families import sliding
from clearseek.model.families.family import GROUPED, Family

FAMILY = Family(
    name="qwen2",
    architecture="Qwen2ForCausalLM",
    keys=GROUPED,
    implied={"qkv_bias": True},
    read=sliding.read_switched,
    write=sliding.write_switched,
    more=sliding.FIELDS,
)
