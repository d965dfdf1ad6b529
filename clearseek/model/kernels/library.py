"""Builds the kernels once with the machine's own C++ compiler and keeps the library beside the environment."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor

BUILD_SECONDS = 120.0
_HERE = Path(__file__).parent
_FLAGS = ("-O3", "-march=native", "-std=c++17", "-fno-math-errno", "-fopenmp", "-shared", "-fPIC", "-w")
_NEEDED = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16")
LANES = 16  # every size that a kernel runs over is a multiple of this
OFF = "CLEARSEEK_KERNELS"  # set to 0: the plain forms are used


def why_not() -> str | None:
    """What keeps the kernels from being used on this machine; None: nothing."""
    return _load()[1]


def library() -> ctypes.CDLL:
    """The loaded kernels. Ask `fits` first."""
    loaded = _load()[0]
    assert loaded is not None
    return loaded


def fits(dtype: torch.dtype, tensor: Tensor, *sizes: int) -> bool:
    """Whether the kernels compute this: bf16 on a CPU that has them, outside torch.compile, in whole lanes."""
    if dtype != torch.bfloat16 or tensor.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return not any(size % LANES for size in sizes) and _load()[0] is not None


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    reason = _missing()
    if reason is not None:
        return None, reason
    try:
        return ctypes.CDLL(str(_built())), None
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"building them failed ({_first_line(error)})"


def _missing() -> str | None:
    if os.environ.get(OFF) == "0":
        return f"{OFF}=0"
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "they are written for Linux on x86-64"
    if missing := [flag for flag in _NEEDED if flag not in _processor_flags()]:
        return f"this processor lacks {', '.join(missing)}"
    if _compiler() is None:
        return "there is no C++ compiler (g++ or clang++)"
    return None


def _processor_flags() -> frozenset[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def _compiler() -> str | None:
    named = os.environ.get("CXX")
    return shutil.which(named) if named else shutil.which("g++") or shutil.which("clang++")


def _built() -> Path:
    """The library's path; built first where this source was never built for this processor."""
    sources = sorted([*_HERE.glob("*.cpp"), *_HERE.glob("*.h")])
    compiler = _compiler()
    assert compiler is not None
    told = [*_FLAGS, compiler, ",".join(sorted(_processor_flags())), *(path.read_text() for path in sources)]
    name = f"kernels-{hashlib.blake2b(chr(0).join(told).encode(), digest_size=8).hexdigest()}.so"
    folder = _folder()
    path = folder / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / name
            units = [str(source) for source in sources if source.suffix == ".cpp"]
            command = [compiler, *_FLAGS, "-o", str(made), *units]
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)
            made.replace(path)  # another process may have built the same: either is right
    return path


def _folder() -> Path:
    """Beside the environment; in a folder of this user's own where that can't be written."""
    beside = Path(sys.prefix) / "cache" / "kernels"
    for folder in (beside, Path.home() / ".cache" / "clearseek" / "kernels"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except OSError:
            continue
    return Path(tempfile.mkdtemp(prefix="clearseek-kernels-"))


def _first_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    return next(iter(text.strip().splitlines()), type(error).__name__)
