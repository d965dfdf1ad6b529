"""Lanes: under which conditions a run computes, so that who replays it in the same lane gets the same bits.

`cpu-native`    what this processor does best; the same on processors of the same kind
`cpu-avx2`      the instructions of x86-64-v3, in fp32, on one thread; the same wherever there is AVX2
`cpu-portable`  the oldest instructions, in fp32, on one thread; the same on any x86-64, at less than half the speed
`cuda-smNN`     one kind of GPU, with deterministic algorithms; the same with the same driver and torch

A lane's environment is read when torch is loaded, so it must be set before: nothing here imports torch.
"""

import hashlib
import importlib.metadata
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.machine import describe_machine

_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
_CUDA = re.compile(r"cuda-sm[0-9]+")


@dataclass(frozen=True)
class Lane:
    """What a lane asks for; None leaves it to the machine and the recipe."""

    name: str
    device: str = "cpu"
    environment: dict[str, str] = field(default_factory=dict)
    dtype: str | None = None
    threads: int | None = None
    capability: str | None = None  # as torch names the instructions that it then uses
    needs: str | None = None  # a flag of the processor

    @property
    def is_native(self) -> bool:
        """Whether it takes the machine as it is."""
        return not self.environment


NATIVE = Lane("cpu-native")
_FIXED = {"CLEARSEEK_KERNELS": "0"}  # ours are written for AVX-512 and AMX
LANES = {
    lane.name: lane
    for lane in (
        NATIVE,
        Lane(
            "cpu-avx2",
            environment={"ATEN_CPU_CAPABILITY": "avx2", "MKL_CBWR": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
            | _FIXED,
            dtype="float32",
            threads=1,
            capability="AVX2",
            needs="avx2",
        ),
        Lane(
            "cpu-portable",
            environment={
                "ATEN_CPU_CAPABILITY": "default",
                "MKL_CBWR": "COMPATIBLE",
                "ONEDNN_MAX_CPU_ISA": "SSE41",
            }
            | _FIXED,
            dtype="float32",
            threads=1,
            capability="DEFAULT",
        ),
    )
}


def find_lane(name: str) -> Lane:
    """The lane of that name. InputError lists what there is."""
    if _CUDA.fullmatch(name):
        return Lane(name, "cuda", {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"})
    if name not in LANES:
        raise InputError(
            f"lane {name!r} is not known; lanes: {', '.join(LANES)}, and cuda-smNN such as cuda-sm90"
        )
    return LANES[name]


def enter(lane: Lane) -> None:
    """Set a lane's environment. RunError where torch has been loaded without it, or the processor can't do it."""
    if lane.needs is not None and lane.needs not in _processor_flags():
        raise RunError(f"this processor has no {lane.needs}, so the lane {lane.name} can't be offered here")
    missing = [name for name, value in lane.environment.items() if os.environ.get(name) != value]
    if missing and "torch" in sys.modules:
        raise RunError(
            f"lane {lane.name} needs {' '.join(f'{n}={lane.environment[n]}' for n in missing)} before torch is loaded: "
            f"set it in the environment, or use the command line with --lane {lane.name}"
        )
    os.environ.update(lane.environment)


def conditions() -> dict[str, Any]:
    """What a native lane depends on besides its name: processor, its instructions, the build of torch."""
    flags = _processor_flags()
    return {
        "processor": describe_machine()["processor"],
        "flags": [flag for flag in _FLAGS if flag in flags],
        "torch_sha256": _torch_sha256(),
    }


def why_not_here(lane: str | None, recorded: dict[str, Any]) -> str | None:
    """In one line, what keeps this machine from offering the lane that a run was made in; None: nothing."""
    if lane is None:
        return "the run was made before there were lanes, or on a GPU without one: its bits may differ here"
    here = conditions()
    if here["torch_sha256"] != recorded.get("torch_sha256"):
        return f"the run was made with another build of torch than is installed here, so lane {lane} can't be offered"
    if lane == NATIVE.name and here["flags"] != recorded.get("flags"):
        return (
            f"the run was made on {recorded.get('processor')}, and this is {here['processor']}, with other "
            f"instructions: lane {lane} can't be offered here"
        )
    return None


def _processor_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    found = next((line for line in lines if line.startswith("flags")), ":")
    return frozenset(found.partition(":")[2].split())


def _torch_sha256() -> str | None:
    """Of the list of files, with their hashes, that the installed torch came with."""
    try:
        listed = importlib.metadata.distribution("torch").read_text("RECORD") or ""
    except importlib.metadata.PackageNotFoundError:
        return None
    # paths outside the package (scripts) and compiled files are made where it is installed
    lines = sorted(line for line in listed.splitlines() if line.startswith("torch/") and ".pyc" not in line)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
