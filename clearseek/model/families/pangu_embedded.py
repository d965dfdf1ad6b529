"""openPangu Embedded (Huawei): Llama with one switch for the biases of attention, output included."""

from clearseek.model.families.family import GROUPED, SWITCHES, Family

OFF = {"use_mhc": False, "sandwich_norm": False, "param_sink_number": 0, "is_causal": True, "use_mome": False}

FAMILY = Family(
    name="PanguEmbedded",
    architecture="PanguEmbeddedForCausalLM",
    keys=GROUPED | {"qkv_bias": "bias", "out_bias": "bias", "mlp_bias": "mlp_bias"},
    defaults={"bias": False, "mlp_bias": False},
    switches=SWITCHES | OFF,
    in_transformers=False,
)
