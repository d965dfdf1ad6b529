"""Builds the kernels once with the machine's own C++ compiler and keeps the library beside the environment."""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

BUILD_SECONDS = 600.0
_HERE = Path(__file__).parent
_FLAGS = (  # without contraction: two kernels that share a function compute the same bits
    "-O3", "-march=native", "-std=c++17", "-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing",
    "-fopenmp", "-fPIC", "-w",
)  # fmt: skip
_NEEDED = ("avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "avx512_vnni")
_TILES = frozenset(("amx_tile", "amx_bf16", "amx_int8"))
LANES = 16  # every size that a kernel runs over is a multiple of this
MAX_HEAD, MAX_EXPERTS = 512, 512  # the scratch of `rows.h` and `routing.h` holds so many
OFF = "CLEARSEEK_KERNELS"  # set to 0: the plain forms are used; to avx512: kernels without AMX


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


def why_not_fit(dtype: torch.dtype, tensor: Tensor) -> str | None:
    """What keeps the kernels from computing in `dtype` where `tensor` is; None: nothing."""
    if dtype != torch.bfloat16 or tensor.device.type != "cpu":
        return f"they compute in bfloat16 on a CPU, not in {str(dtype).removeprefix('torch.')} on {tensor.device.type}"
    return why_not()


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str | None]:
    reason = _missing()
    if reason is not None:
        return None, reason
    try:
        if (folder := _folder()) is not None:
            return ctypes.CDLL(str(_built(folder))), None
        with tempfile.TemporaryDirectory(prefix="clearseek-kernels-") as passing:
            return ctypes.CDLL(str(_built(Path(passing)))), None
    except (OSError, subprocess.SubprocessError) as error:
        return None, f"building them failed ({_first_line(error)})"


def _missing() -> str | None:
    if (told := os.environ.get(OFF, "1")) == "0":
        return f"{OFF}=0"
    if told not in ("1", "avx512"):
        raise ValueError(
            f"{OFF}={told} is not known; set it to 0 (no kernels), avx512 (none on AMX) or 1 (all)"
        )
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "they are written for Linux on x86-64"
    if missing := [flag for flag in _NEEDED if flag not in _processor_flags()]:
        return f"this processor lacks {', '.join(missing)}"
    if not _compiler():
        named = os.environ.get("CXX")
        return f"CXX={named} is not a program here" if named else "there is no C++ compiler (g++ or clang++)"
    return None


def _processor_flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith("flags")), ":")
    return frozenset(flags.split(":", 1)[1].split())


def has_tiles() -> bool:
    """Whether products run on AMX: the processor has it, and Linux lets this process, and those it forks, use it."""
    if os.environ.get(OFF) == "avx512" or _TILES - _processor_flags():
        return False
    # arch_prctl(ARCH_REQ_XCOMP_PERM, XTILEDATA) of x86-64: linux/Documentation/arch/x86/xstate.rst
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    numbers = map(ctypes.c_long, (arch_prctl, request_permission, tile_data))
    return ctypes.CDLL(None).syscall(*numbers) == 0


def form() -> str:
    """Which kernels compute in this process: "amx", "avx512" or "none"."""
    if why_not() is not None:
        return "none"
    return "amx" if has_tiles() else "avx512"


def sources_sha256() -> str:
    """SHA-256 over the texts of the kernels' sources, in order of their names."""
    return hashlib.sha256(chr(0).join(path.read_text("utf-8") for path in _sources()).encode()).hexdigest()


def _sources() -> list[Path]:
    return sorted([*_HERE.glob("*.cpp"), *_HERE.glob("*.h")])


def _compiler() -> list[str]:
    """The command that compiles C++, `CXX` where it is set; empty: there is none."""
    named = shlex.split(os.environ.get("CXX", ""))
    found = shutil.which(named[0]) if named else shutil.which("g++") or shutil.which("clang++")
    return [found, *named[1:]] if found else []


def _built(folder: Path) -> Path:
    """The library's path in `folder`; built first where this source was never built for this processor."""
    sources, compiler = _sources(), _compiler()
    texts = (path.read_text("utf-8") for path in sources)
    flags = [*_FLAGS, *(["-DWITH_AMX"] if has_tiles() else [])]
    told = [*flags, *compiler, ",".join(sorted(_processor_flags())), *texts]
    name = f"kernels-{hashlib.blake2b(chr(0).join(told).encode(), digest_size=8).hexdigest()}.so"
    path = folder / name
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            units = [source for source in sources if source.suffix == ".cpp"]
            objects = [str(Path(scratch) / f"{unit.stem}.o") for unit in units]
            _run_all(
                [*compiler, *flags, "-c", "-o", made, str(unit)]
                for unit, made in zip(units, objects, strict=True)
            )
            made = Path(scratch) / name
            _run_all([[*compiler, *flags, "-shared", "-o", str(made), *objects]])
            made.replace(path)  # another process may have built the same: either is right
    return path


def _run_all(commands: Iterable[list[str]]) -> None:
    """Run compilers side by side, as many as there are processors."""

    def run(command: list[str]) -> None:
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_SECONDS)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(run, commands))


def _folder() -> Path | None:
    """Beside the environment, else in a folder of this user's own; None: neither can be written."""
    for place in (f"{sys.prefix}/cache/kernels", "~/.cache/clearseek/kernels"):
        try:
            folder = Path(place).expanduser()
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return folder
        except (OSError, RuntimeError):  # not ours to write to; a user without a home
            continue
    return None


def _first_line(error: Exception) -> str:
    told = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip()
    return next(iter((told or str(error)).splitlines()), type(error).__name__)
