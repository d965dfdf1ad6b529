"""Hunyuan dense (Tencent): query and key norms after rotary, whose base a fixed alpha stretches."""

from clearseek.model.families.family import GROUPED, SWITCHES, Family

NAMES = {
    ".self_attn.q_norm.": ".self_attn.query_layernorm.",
    ".self_attn.k_norm.": ".self_attn.key_layernorm.",
}
KEYS = GROUPED | {"qkv_bias": "attention_bias", "out_bias": "attention_bias"}
HUNYUAN_SWITCHES = SWITCHES | {"use_qk_norm": True, "use_cla": False}

FAMILY = Family(
    name="hunyuan_v1_dense",
    architecture="HunYuanDenseV1ForCausalLM",
    keys=KEYS,
    implied={"qk_norm": "after_rotary"},
    defaults={"attention_bias": False, "rms_norm_eps": 1e-5},
    switches=HUNYUAN_SWITCHES,
    names=NAMES,
    scalings=frozenset({"ntk_alpha", "linear"}),
)
