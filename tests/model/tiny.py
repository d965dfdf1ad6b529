"""Decoders of every shape we support, small enough to compare in milliseconds, with weights that matter."""

from pathlib import Path

import torch

from clearseek.config.model import ModelConfig, RopeScaling
from clearseek.model.decoder import Decoder
from clearseek.model.families import config_from_published
from tests.model.published import SHAPES, config_json

DENSE_LATENT = {
    "family": "deepseek_v3",
    "vocab_size": 97,
    "hidden_size": 32,
    "num_layers": 3,
    "num_heads": 4,
    "intermediate_size": 48,
    "q_lora_rank": 12,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 6,
    "v_head_dim": 10,
}
EXPERTS = {
    "num_routed_experts": 8,
    "num_shared_experts": 1,
    "num_experts_per_token": 2,
    "moe_intermediate_size": 16,
    "num_dense_layers": 1,
    "num_expert_groups": 4,
    "num_limited_groups": 2,
    "routed_scaling_factor": 2.5,
}
LATENT = DENSE_LATENT | EXPERTS
GROUPED = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_layers": 3,
    "num_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
}
YARN = RopeScaling(factor=4.0, original_max_position_embeddings=16, mscale=0.7, mscale_all_dim=1.3)

CONFIGS = {
    "deepseek_v3": ModelConfig(**LATENT),
    "deepseek_v3 without query latent": ModelConfig(**LATENT | {"q_lora_rank": None}),
    "deepseek_v3 tied": ModelConfig(**LATENT | {"tie_word_embeddings": True}),
    "deepseek_v3 yarn": ModelConfig(
        **LATENT, rope_scaling=YARN, max_position_embeddings=64, rope_theta=100.0, rms_norm_eps=1e-3
    ),
    "deepseek_v3 mtp": ModelConfig(**LATENT, num_mtp_layers=1),
    "deepseek_v3 many experts": ModelConfig(
        **LATENT
        | {"num_routed_experts": 20, "num_expert_groups": 1, "num_limited_groups": 1, "num_shared_experts": 2}
    ),
    "deepseek_v3 dense": ModelConfig(**DENSE_LATENT),
    "qwen3": ModelConfig(family="qwen3", **GROUPED, head_dim=12, tie_word_embeddings=True),
    "qwen3 yarn": ModelConfig(
        family="qwen3",
        **GROUPED,
        max_position_embeddings=64,
        rope_theta=100.0,
        rope_scaling=RopeScaling(factor=4.0, original_max_position_embeddings=16, mscale_all_dim=0.0),
    ),
    "llama": ModelConfig(family="llama", **GROUPED, rms_norm_eps=1e-5),
    "llama without groups": ModelConfig(family="llama", **GROUPED | {"num_key_value_heads": None}),
}


FAMILY_CONFIGS = {
    f"{architecture} {shape}": config_from_published(config_json(architecture, shape), Path("config.json"))
    for architecture, shape in SHAPES
}


def tiny_model(config: ModelConfig, seed: int = 0, std: float = 0.2) -> Decoder:
    """Weights so large that attention is sharp and a wrong turn shows; norms and biases are not neutral."""
    generator = torch.Generator().manual_seed(seed)
    model = Decoder(config)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.3 * noise if parameter.ndim == 1 else std * noise)
        for router in model.routers():
            if router.selection_bias is None:
                continue
            router.selection_bias.copy_(0.2 * torch.randn(router.selection_bias.shape, generator=generator))
    return model


def some_tokens(config: ModelConfig, rows: int, length: int, seed: int = 1) -> torch.Tensor:
    """Random token ids [rows, length]."""
    return torch.randint(3, config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))
