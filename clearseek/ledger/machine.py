"""What machine this is, in words and numbers that the standard library can find out."""

import ctypes
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any


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
    quota = _words("/sys/fs/cgroup/cpu.max")
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        cores = min(cores, max(1, round(int(quota[0]) / int(quota[1]))))
    return cores


def memory_bytes() -> int | None:
    """Memory of the machine, or of the container where that is less."""
    try:
        total: int | None = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        total = None
    limit = _words("/sys/fs/cgroup/memory.max")
    if limit and limit[0].isdigit():
        return min(int(limit[0]), total) if total else int(limit[0])
    return total


def nvidia_driver(library: str = "libnvidia-ml.so.1") -> str | None:
    """The version of the driver of NVIDIA's accelerators, such as 570.86.15; None where NVML doesn't tell."""
    try:
        nvml, version = ctypes.CDLL(library), ctypes.create_string_buffer(96)
        if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(version, len(version)):
            return None
    except (OSError, AttributeError):
        return None
    return version.value.decode(errors="replace")


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory that could be had without others' being pushed out; None where the system doesn't say.

    It is what the kernel calls available (macOS: free, inactive, speculative and purgeable pages), or what the limits
    of this process's control groups, of either version, leave of it. `root` is where the system's files are.
    """
    lines = _table(root / "proc/meminfo", ":")
    found = [int(lines["MemAvailable"].split()[0]) * 1024] if "MemAvailable" in lines else []
    if not found and (pages := _mac_pages()) is not None:
        found = [pages]
    for group in _words(str(root / "proc/self/cgroup"), lines=True):
        controllers, _, path = group.partition(":")[2].partition(":")
        if controllers == "" or "memory" in controllers.split(","):
            top, below = root / "sys/fs/cgroup" / ("memory" if controllers else ""), Path(path.lstrip("/"))
            left = [_left_in(top / part, bool(controllers)) for part in (below, *below.parents)]
            found += [one for one in left if one is not None]  # a limit holds for all that is below it
    return max(min(found), 0) if found else None


def _left_in(group: Path, is_first: bool) -> int | None:
    """What a control group's limit leaves, its file cache counted as free; None where it has none."""
    names = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if is_first
        else ("memory.max", "memory.current", "inactive_file")
    )
    limit, used = (_words(str(group / name)) for name in names[:2])
    if not (limit and limit[0].isdigit() and used):
        return None
    cache = _table(group / "memory.stat", " ").get(names[2], "0")
    return int(limit[0]) - max(int(used[0]) - int(cache), 0)


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


def _table(path: Path, separator: str) -> dict[str, str]:
    """A kernel's file of names and values."""
    pairs = (line.partition(separator) for line in _words(str(path), lines=True))
    return {name: value.strip() for name, _, value in pairs}


def _processor() -> str | None:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or None


def _words(path: str, lines: bool = False) -> list[str]:
    try:
        text = Path(path).read_text(encoding="ascii")
        return text.splitlines() if lines else text.split()
    except (OSError, ValueError):
        return []
