"""Mixtral: Mistral with a few wide experts in every layer, under names of its own."""

from clearseek.model.families import sliding
from clearseek.model.families.family import GROUPED, Family

FAMILY = Family(
    name="mixtral",
    architecture="MixtralForCausalLM",
    keys=GROUPED
    | {
        "num_routed_experts": "num_local_experts",
        "num_experts_per_token": "num_experts_per_tok",
        "moe_intermediate_size": "intermediate_size",
    },
    implied={"router_scores": "softmax", "has_selection_bias": False},
    names={
        ".mlp.gate.": ".block_sparse_moe.gate.",
        ".mlp.experts.": ".block_sparse_moe.experts.",
        ".gate_proj.": ".w1.",
        ".up_proj.": ".w3.",
        ".down_proj.": ".w2.",
    },
    read=sliding.read_everywhere,
    write=sliding.write_everywhere,
    more=sliding.FIELDS,
    default_theta=1_000_000.0,
)
