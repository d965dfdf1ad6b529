"""MiMo-7B (Xiaomi): Qwen2 with multi-token modules of its own kind."""

from clearseek.model.families import qwen2, sliding
from clearseek.model.families.family import Family

FAMILY = Family(
    name="mimo",
    architecture="MiMoForCausalLM",
    keys=qwen2.FAMILY.keys | {"num_mtp_layers": "num_nextn_predict_layers"},
    implied={"qkv_bias": True, "mtp_kind": "mimo"},
    defaults={"num_nextn_predict_layers": 0},
    read=sliding.read_switched,
    write=sliding.write_switched,
    more=sliding.FIELDS,
    in_transformers=False,
)
