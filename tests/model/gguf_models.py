"""Small models for GGUF files: of every family that they can hold, with rows that are whole blocks of every type."""

from pathlib import Path

from clearseek.config.model import ModelConfig
from clearseek.model.families import config_from_published
from clearseek.model.gguf.storage import DTYPES
from tests.model.published import YARN, config_json

VOCABULARY = 96
GROUPED = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "num_layers": 2,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
}
LATENT = {
    "family": "deepseek_v3",
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "num_layers": 2,
    "num_heads": 4,
    "intermediate_size": 512,
    "q_lora_rank": 256,
    "kv_lora_rank": 256,
    "qk_nope_head_dim": 64,
    "qk_rope_head_dim": 32,
    "v_head_dim": 64,
}
# every expert is chosen: with fewer, rounding to 8 bits now and then chooses another
EXPERTS = {
    "num_routed_experts": 4,
    "num_shared_experts": 1,
    "num_experts_per_token": 4,
    "moe_intermediate_size": 256,
    "num_dense_layers": 1,
    "routed_scaling_factor": 2.5,
}
WHOLE_BLOCKS = {
    "llama": ModelConfig(family="llama", **GROUPED),
    "qwen3": ModelConfig(family="qwen3", **GROUPED, tie_word_embeddings=True),
    "deepseek_v3": ModelConfig(**LATENT, **EXPERTS),
}

# every type of each, but the one for experts where there are none
STORED = [
    (name, dtype)
    for name, config in WHOLE_BLOCKS.items()
    for dtype in DTYPES
    if dtype != "mxfp4" or config.num_routed_experts
]
# as llama.cpp wants them: one floor for every norm, and an index head that a Hadamard matrix turns
_LATENT = {"rms_norm_eps": 1e-6}
_INDEXER = _LATENT | {"index_head_dim": 64}
# where rounding the bounds of the ramp shows
_STRETCH = YARN | {"original_max_position_embeddings": 64, "truncate": False}
_RAMP = {"head_dim": 32, "rope_theta": 1e6, "rope_scaling": _STRETCH}
_EVERY_OTHER = ["full_attention", "sliding_attention", "full_attention"]


def family_config(architecture: str, shape: int, **changes: object) -> ModelConfig:
    """A config of `tests/model/published.py`, with changes to its config.json."""
    return config_from_published(config_json(architecture, shape) | changes, Path("config.json"))


# families whose layers differ, or that have names of their own
OF_FAMILIES = {
    "gpt-oss": family_config("GptOssForCausalLM", 0, rope_scaling=YARN),
    "gpt-oss without a stretch, windows elsewhere": family_config(
        "GptOssForCausalLM", 0, rope_scaling=None, layer_types=_EVERY_OTHER
    ),
    "gpt-oss with a ramp as published": family_config("GptOssForCausalLM", 0, **_RAMP),
    "mistral4": family_config("Mistral4ForCausalLM", 0, **_LATENT),
    "mistral4 in groups": family_config("Mistral4ForCausalLM", 1, q_lora_rank=12, **_LATENT),
    "mistral4 growing": family_config("Mistral4ForCausalLM", 2, **_LATENT),
    "deepseek32": family_config("DeepseekV32ForCausalLM", 0, **_INDEXER),
    "deepseek32 seeing three, tied": family_config("DeepseekV32ForCausalLM", 1, **_INDEXER),
    "hy_v3": family_config("HYV3ForCausalLM", 0),
    "hy_v3 dense in the middle": family_config("HYV3ForCausalLM", 1),
    "hy_v3 stretched": family_config("HYV3ForCausalLM", 2),
    "mimo2": family_config("MiMoV2FlashForCausalLM", 0),
    "mimo2 in groups": family_config("MiMoV2FlashForCausalLM", 2),
}


def vocabulary_of(size: int) -> dict[str, object]:
    """The least keys of a tokenizer that llama.cpp opens, for models whose tokens are only numbers."""
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": [f"t{number}" for number in range(size)],
        "tokenizer.ggml.token_type": [1] * size,
        "tokenizer.ggml.merges": ["t 1"],
        "tokenizer.ggml.eos_token_id": 1,
    }


# what a damaged file may say where something else is asked for
VALUES = [
    None,
    "x",
    "",
    -1,
    0,
    3,
    2**31,
    2**62,
    1.5,
    float("nan"),
    float("inf"),
    [1, 2],
    ["a"],
    [],
    True,
    "yarn",
]
