"""ERNIE 4.5, dense (Baidu): Llama that turns neighbouring pairs, with one switch for every bias."""

from clearseek.model.families.family import GROUPED, Family, Keys

BIASES: Keys = {"qkv_bias": "use_bias", "out_bias": "use_bias", "mlp_bias": "use_bias"}

FAMILY = Family(
    name="ernie4_5",
    architecture="Ernie4_5ForCausalLM",
    keys=GROUPED | BIASES,
    implied={"rotates_pairs": True},
    defaults={"use_bias": False, "tie_word_embeddings": True, "head_dim": 128, "rms_norm_eps": 1e-5},
    default_theta=500_000.0,
)
