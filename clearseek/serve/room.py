"""How much memory there is for another model, where models are computed."""

import os
import subprocess

from clearseek.ledger.machine import available_memory_bytes

_SECONDS = 10.0


def available_bytes(device: str) -> int | None:
    """On a kind of device, as `torch.device.type` names it; None where the system doesn't say."""
    return free_gpu_bytes() if device == "cuda" else available_memory_bytes()


def free_gpu_bytes() -> int | None:
    """Of the GPU that torch calls the first: asked of the driver's program, since torch would take some of it."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    query = ["nvidia-smi", f"--id={first}", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS, check=True).stdout
        return int(said.split()[0]) << 20  # it counts MiB
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
