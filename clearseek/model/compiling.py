"""torch.compile where it pays: one compiled layer serves all layers, so that a small model compiles in seconds.

Compiled code is kept in a cache beside the environment; nothing here is required for anything to work.
"""

import os
import sys
import tempfile
from pathlib import Path

import torch

from clearseek.model.decoder import Decoder
from clearseek.model.experts import keep_out_of_graphs

COMPILE_SECONDS = 45.0  # of one kind of layer with an empty cache, two cores
COMPILED_SPEEDUP = 2.0  # of a training step, measured for models of 1 to 10 million parameters


def pays(eager_seconds: float) -> bool:
    """Whether compiling costs less than it saves over a stage that would take this long without."""
    return eager_seconds * (1 - 1 / COMPILED_SPEEDUP) > COMPILE_SECONDS


def use_cache() -> None:
    """Keep compiled code with the environment, unless the user has said where."""
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    beside = Path(sys.prefix) / "cache" / "inductor"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=beside):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(beside)
    except OSError:
        return  # a read-only environment: torch keeps its own default


def compile_layers(model: Decoder) -> None:
    """Compile every layer of a model in place; the first to run compiles for all."""
    use_cache()
    keep_out_of_graphs()
    torch._dynamo.config.recompile_limit = 64
    for layer in [*model.layers, *(module.layer for module in model.mtp)]:
        layer.compile()
