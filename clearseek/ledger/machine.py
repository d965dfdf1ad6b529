"""What machine this is, in words and numbers that the standard library can find out."""

import ctypes
import math
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")
_NO_LIMIT = 1 << 60  # bytes; version 1 of control groups says so where there is none


def describe_machine() -> dict[str, Any]:
    """Processor, usable cores, memory, system and Python; None for what the system does not say."""
    return {
        "processor": _processor(),
        "cores": usable_cores(),
        "memory_bytes": memory_bytes(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def usable_cores() -> int:
    """Cores this process may run on: its affinity, further limited by the container's processor quota."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _words(_GROUPS / "cpu.max")
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        cores = min(cores, max(1, round(int(quota[0]) / int(quota[1]))))
    return cores


def memory_bytes() -> int | None:
    """Memory of the machine, or of the container where that is less."""
    try:
        total: int | None = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        total = None
    limits = [total or math.inf, *(limit for limit, _ in _group_memory(_PROC, _GROUPS))]
    return None if math.isinf(min(limits)) else int(min(limits))


def nvidia_driver(library: str = "libnvidia-ml.so.1") -> str | None:
    """The version of the driver of NVIDIA's accelerators, such as 570.86.15; None where NVML doesn't tell."""
    try:
        nvml, version = ctypes.CDLL(library), ctypes.create_string_buffer(96)
        if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(version, len(version)):
            return None
    except (OSError, AttributeError):
        return None
    return version.value.decode(errors="replace")


def available_memory_bytes(proc: Path = _PROC, groups: Path = _GROUPS) -> int | None:
    """Memory that can still be had without others' being pushed out; None where the system does not say.

    Of the machine (Linux: `MemAvailable`; macOS: free, inactive, speculative and purgeable pages), or of a container or
    control group (version 1 or 2) that allows less.
    """
    words = dict(line.split(":", 1) for line in _lines(proc / "meminfo") if ":" in line)
    found = [float(words["MemAvailable"].split()[0]) * 1024] if "MemAvailable" in words else []
    if not found and (pages := _mac_pages()) is not None:
        found = [float(pages)]
    found += [max(limit - used, 0.0) for limit, used in _group_memory(proc, groups)]
    least = min(found, default=math.inf)
    return None if math.isinf(least) else int(least)


def _mac_pages() -> int | None:
    if platform.system() != "Darwin":
        return None
    try:
        said = subprocess.run(["vm_stat"], capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    pages = dict(re.findall(r"^Pages ([a-z]+): +(\d+)\.$", said, re.MULTILINE))
    size = re.search(r"page size of (\d+) bytes", said)
    kinds = ("free", "inactive", "speculative", "purgeable")
    return int(size[1]) * sum(int(pages.get(kind, 0)) for kind in kinds) if size else None


def _group_memory(proc: Path, groups: Path) -> Iterator[tuple[float, float]]:
    """Bytes of each control group that this process is in: its limit, where it has one, and what is taken for good.

    Pages of files that nobody has used lately count as taken there, but are given up before anything else.
    """
    for folder, (limit, used, idle) in _group_folders(proc, groups):
        words, taken = _words(folder / limit), _words(folder / used)
        if words and taken and words[0].isdigit() and taken[0].isdigit() and int(words[0]) < _NO_LIMIT:
            stat = dict(line.split() for line in _lines(folder / "memory.stat") if len(line.split()) == 2)
            yield float(words[0]), float(taken[0]) - float(stat.get(idle, 0))


def _group_folders(proc: Path, groups: Path) -> Iterator[tuple[Path, tuple[str, str, str]]]:
    """Where the kernel tells of them, the innermost first, and its names for limit, use and idle pages there."""
    new, old = ("memory.max", "memory.current", "inactive_file"), (
        "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file",
    )  # fmt: skip
    for line in [*_lines(proc / "self/cgroup"), "0::/", "0:memory:/"]:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (groups / "memory", old) if controllers else (groups, new)
        place = PurePosixPath("/", path.lstrip("/"))
        yield from ((root / each.relative_to("/"), names) for each in (place, *place.parents))


def _processor() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def _words(path: Path) -> list[str]:
    return " ".join(_lines(path)).split()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return []
