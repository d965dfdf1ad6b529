"""Small models for GGUF files: of every family that they can hold, with rows that are whole blocks of every type."""

from clearseek.config.model import ModelConfig

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
