"""Mistral 7B, Nemo and Small: Llama with heads of any size and, in the first ones, a sliding window."""

from clearseek.model.families import sliding
from clearseek.model.families.family import GROUPED, Family

FAMILY = Family(
    name="mistral",
    architecture="MistralForCausalLM",
    keys=GROUPED,
    read=sliding.read_everywhere,
    write=sliding.write_everywhere,
    more=sliding.FIELDS,
)
