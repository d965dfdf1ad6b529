"""Where to compute and in what: chosen here, by what the machine has, and always with the reason."""

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from clearseek.config.errors import InputError
from clearseek.model.kernels.library import has_tiles, why_not

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """A device, the dtype to compute in there, and why, in one line for people."""

    device: torch.device
    dtype: torch.dtype
    reason: str


def choose_device(name: str = "auto", dtype: str = "auto") -> DeviceChoice:
    """The device called `name` (auto, cpu, cuda, cuda:N or mps) and its best dtype, or the one asked for.

    Raises InputError for a device that this machine has not got, or a dtype that we don't compute in.
    """
    if dtype not in ("auto", *_DTYPES):
        raise InputError(f"dtype {dtype!r} is not supported; known ones: auto, {', '.join(_DTYPES)}")
    device, why_device = _find_device(name)
    best, why_dtype = _best_dtype(device)
    if dtype != "auto":
        best, why_dtype = _DTYPES[dtype], f"{dtype} as asked"
    return DeviceChoice(device, best, f"{why_device}; {why_dtype}")


def _find_device(name: str) -> tuple[torch.device, str]:
    kind, _, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (number and (kind != "cuda" or not number.isdecimal())):
        raise InputError(f"device {name!r} is not known; give auto, cpu, cuda, cuda:N or mps")
    if name == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found), "no accelerator found" if found == "cpu" else f"{found} found"
    if kind == "cuda" and int(number or 0) >= (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        raise InputError(f"device {name} is not on this machine; use --device auto or --device cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise InputError("device mps is not on this machine; use --device auto or --device cpu")
    return torch.device(name), f"{name} as asked"


def _best_dtype(device: torch.device) -> tuple[torch.dtype, str]:
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "bfloat16 because this GPU computes in it"
        return torch.float32, "float32 because this GPU has no bfloat16"
    if device.type == "mps":
        return torch.float32, "float32 because bfloat16 is not reliable on mps"
    capabilities = torch.cpu.get_capabilities()
    for instructions in ("amx_bf16", "avx512_bf16"):
        if capabilities.get(instructions):
            reason = why_not()
            on = " on AMX" if has_tiles() else ""
            kernels = f"with fused kernels{on}" if reason is None else f"without fused kernels: {reason}"
            return torch.bfloat16, f"bfloat16 because this processor has {instructions}, {kernels}"
    return torch.float32, "float32 because this processor has no fast bfloat16"


def can_compile() -> str | None:
    """None when `torch.compile` can build kernels for the CPU here, else what is missing."""
    default = "clang++" if sys.platform == "darwin" else "cl" if sys.platform == "win32" else "g++"
    compiler = os.environ.get("CXX", default)
    if shutil.which(compiler) is None:
        return f"no C++ compiler ({compiler}) on this machine"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "Python's headers (Python.h) are not installed"
    from torch._dynamo.eval_frame import is_dynamo_supported  # a second to import: only when asked

    return None if is_dynamo_supported() else "torch.compile does not support this version of Python"


def allocate(module: nn.Module, device: torch.device | str) -> None:
    """Memory on `device` for a module on the meta device, as by `to_empty`, which would load sympy first."""
    module._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device=device))
