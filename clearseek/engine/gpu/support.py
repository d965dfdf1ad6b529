"""Which models the GPU's kernels know, asked without importing Triton: PyTorch for CUDA brings it, others don't."""

import importlib.util
import os

import torch

from clearseek.engine.formats import Format
from clearseek.engine.mixed_formats import Formats
from clearseek.model.decoder import Decoder

# so that a tile of keys and queries fits a multiprocessor's memory, and that kernels compile in seconds
_MOST = {"head size": 256, "latent rank": 512}
_MOST_FLOAT32 = {"head size": 192, "latent rank": 128}
_FP8_SINCE = 8, 9  # compute capability
SWITCH = "CLEARSEEK_GPU_KERNELS"


def why_unasked() -> str | None:
    """The kernels compute only where they are asked for, until a GPU has measured them; None: they are."""
    if os.environ.get(SWITCH) == "1":
        return None
    return f"the kernels for GPUs have been measured on none yet; {SWITCH}=1 takes them"


def why_not(model: Decoder, form: Format | Formats) -> str | None:
    """What keeps a model on a GPU from the kernels; None: nothing."""
    config = model.config
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed; pip install triton"
    if config.index_topk:
        return "an indexer that chooses positions"
    sizes = {
        "head size": 0 if config.is_latent else max(config.head_size, config.value_size),
        "latent rank": config.kv_lora_rank or 0,
    }
    most = _MOST_FLOAT32 if form.name == "float32" else _MOST
    for name, size in sizes.items():
        if size > most[name]:
            return f"its {name} ({size}) is above {most[name]}, the kernels' most in {form.name}"
    return _unfit_format(model, form)


def _unfit_format(model: Decoder, form: Format | Formats) -> str | None:
    """What keeps weights from their format: whole groups of inputs, and a GPU that multiplies in fp8."""
    device = model.norm.weight.device
    if (
        "fp8" in form.names
        and device.type == "cuda"
        and torch.cuda.get_device_capability(device) < _FP8_SINCE
    ):
        return "this GPU does not multiply in fp8"
    if not form.names & {"int8", "int4"}:
        return None
    config = model.config
    inputs = {
        "hidden_size": config.hidden_size, "intermediate_size": config.intermediate_size,
        "moe_intermediate_size": config.moe_intermediate_size, "shared width": config.shared_size,
        "query rank": config.q_lora_rank or 0, "latent rank": config.kv_lora_rank or 0,
        "nope size": config.qk_nope_head_dim or 0, "attention width": config.num_heads * config.value_size,
    }  # fmt: skip
    for name, size in inputs.items():
        if size % form.group:
            return f"its {name} ({size}) is not a multiple of the group of {form.group}"
    return None
