"""gpt-oss's experts as OpenAI publishes them: a directory whose matrices become random MXFP4."""

import json
from pathlib import Path

import torch

from clearseek.model.stored import load_tensors, save_tensors

GROUP = 32  # values that share a scale


def quantise(directory: Path) -> None:
    """Replace the experts' matrices by random MXFP4, as OpenAI's checkpoints name it."""
    tensors, metadata = load_tensors(directory / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name in [name for name in tensors if name.endswith(("gate_up_proj", "down_proj"))]:
        experts, inputs, outputs = tensors.pop(name).shape
        shape = experts, outputs, inputs // GROUP
        tensors[f"{name}_blocks"] = torch.randint(
            0, 256, (*shape, GROUP // 2), dtype=torch.uint8, generator=generator
        )
        tensors[f"{name}_scales"] = torch.randint(122, 127, shape, dtype=torch.uint8, generator=generator)
    save_tensors(directory / "model.safetensors", tensors, metadata)
    path = directory / "config.json"
    quantisation = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": quantisation}))
