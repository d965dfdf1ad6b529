"""The models that every engine is given: their shapes, random weights saved once, and the formats made of them."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearseek.config.model import ModelConfig
from clearseek.engine.formats import FormatName

# format → clearseek's and transformers' name of it (None: they have none), and GGUF's
FORMATS: dict[str, tuple[str | None, str]] = {
    "fp32": ("float32", "f32"),
    "bf16": ("bfloat16", "bf16"),
    "int8": (None, "q8_0"),
    "int4": (None, "q4_0"),
}
# format → what our engine computes activations in, and how it keeps weights
OUR_FORMATS: dict[str, tuple[str, FormatName]] = {
    "fp32": ("float32", "float32"),
    "bf16": ("bfloat16", "bfloat16"),
    "int8": ("bfloat16", "int8"),
    "int4": ("bfloat16", "int4"),
}
PROMPT_WORKLOADS = ("one_stream", "streams_16", "prefill_512", "shared_prefix", "rl_group")
MORE_WORKLOADS = (*PROMPT_WORKLOADS, "shared_prefix_cached")  # the last is measured for orientation only


@dataclass(frozen=True)
class Shape:
    """A model's sizes, the workloads that it is measured with, and the formats."""

    config: ModelConfig
    workloads: tuple[str, ...]
    formats: tuple[str, ...] = tuple(FORMATS)


def _config(**sizes: Any) -> ModelConfig:
    return ModelConfig.model_validate({"max_position_embeddings": 4096, **sizes})


TINY_FORMATS = ("fp32", "bf16")
SHAPES: dict[str, Shape] = {
    "dense-0.1b": Shape(
        _config(
            family="llama",
            vocab_size=32_768,
            hidden_size=768,
            num_layers=12,
            num_heads=12,
            num_key_value_heads=4,
            intermediate_size=2048,
            tie_word_embeddings=True,
        ),
        MORE_WORKLOADS,
    ),
    "dense-0.6b": Shape(  # Qwen3-0.6B's
        _config(
            family="qwen3",
            vocab_size=151_936,
            hidden_size=1024,
            num_layers=28,
            num_heads=16,
            num_key_value_heads=8,
            head_dim=128,
            intermediate_size=3072,
            rope_theta=1_000_000.0,
            tie_word_embeddings=True,
        ),
        (*MORE_WORKLOADS, "cold_start"),
    ),
    "latent-moe-0.5b": Shape(  # 0.1 billion of the parameters work on a token
        _config(
            family="deepseek_v3",
            vocab_size=32_768,
            hidden_size=768,
            num_layers=12,
            num_heads=8,
            intermediate_size=2048,
            q_lora_rank=512,
            kv_lora_rank=512,
            qk_nope_head_dim=128,
            qk_rope_head_dim=64,
            v_head_dim=128,
            num_routed_experts=64,
            num_shared_experts=1,
            num_experts_per_token=6,
            moe_intermediate_size=256,
            num_dense_layers=1,
            routed_scaling_factor=2.5,
        ),
        (*MORE_WORKLOADS, "mtp"),
    ),
    "tiny-1m": Shape(
        _config(
            family="qwen3",
            vocab_size=1024,
            hidden_size=128,
            num_layers=4,
            num_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            intermediate_size=384,
            tie_word_embeddings=True,
        ),
        ("batch_128",),
        TINY_FORMATS,
    ),
    "tiny-1m-latent-moe": Shape(
        _config(
            family="deepseek_v3",
            vocab_size=1024,
            hidden_size=128,
            num_layers=4,
            num_heads=4,
            intermediate_size=384,
            q_lora_rank=64,
            kv_lora_rank=32,
            qk_nope_head_dim=32,
            qk_rope_head_dim=16,
            v_head_dim=32,
            num_routed_experts=4,
            num_shared_experts=1,
            num_experts_per_token=2,
            moe_intermediate_size=64,
            num_dense_layers=1,
            tie_word_embeddings=True,
        ),
        ("batch_128",),
        TINY_FORMATS,
    ),
    "tiny-10m": Shape(
        _config(
            family="qwen3",
            vocab_size=4096,
            hidden_size=320,
            num_layers=8,
            num_heads=5,
            num_key_value_heads=5,
            head_dim=64,
            intermediate_size=832,
            tie_word_embeddings=True,
        ),
        ("batch_128",),
        TINY_FORMATS,
    ),
}


def saved(config: ModelConfig, folder: Path) -> Path:
    """The directory in `folder` that holds this shape with random bf16 weights and a tokenizer; made if absent.

    Weights are bf16 numbers in every format but the quantised ones, so that all engines multiply the same.
    """
    import torch

    from clearseek.model.checkpoint import save_model, write_directory
    from clearseek.model.decoder import Decoder
    from clearseek.text.tokenizer import Tokenizer

    directory = folder / fingerprint(config)
    if directory.exists():
        return directory
    model, tokenizer = (
        Decoder(config),
        Tokenizer.train(["merged " * 9], 270),
    )  # llama.cpp opens none without merges
    model.initialise(torch.Generator().manual_seed(0))
    with write_directory(directory) as partial:
        save_model(model.bfloat16(), partial, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=2)
        tokenizer.save(partial)
    return directory


def saved_gguf(directory: Path, format_name: str) -> Path:
    """A saved shape as a GGUF file, by clearseek's own export; made if absent."""
    from clearseek.model.export import export_model

    _, dtype = FORMATS[format_name]
    path = directory.with_name(f"{directory.name}-{dtype}.gguf")
    if not path.exists():
        export_model(directory, "gguf", dtype, path)
    return path


def fingerprint(config: ModelConfig) -> str:
    """A name that changes with the shape."""
    content = json.dumps(config.model_dump(mode="json"), sort_keys=True)
    return f"{config.family}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"
