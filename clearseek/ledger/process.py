"""What this process and the ones it started have cost: processor time and memory.

On Linux the living children (verifiers, compile workers) are counted too, from /proc; elsewhere only those
that have ended.
"""

import os
import sys
import time
from pathlib import Path

_PROC = Path("/proc")


def cpu_seconds() -> float:
    """Processor time of this process and everything it started, since it began."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return own + sum(sum(_stat(pid)[11:15]) / _ticks_per_second() for pid in _descendants())


def peak_memory_bytes() -> int | None:
    """The most memory held resident, by this process and its living children added up; None if not told.

    Memory shared between processes counts once for each, so this errs on the high side.
    """
    own = _status_bytes("self") or _resource_peak()
    return own + sum(_status_bytes(str(pid)) for pid in _descendants()) if own else None


def age_seconds() -> float:
    """Seconds since this process began; 0 where the system does not say."""
    stat = _stat(os.getpid())
    if len(stat) < 20 or not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - stat[19] / _ticks_per_second())


def _ticks_per_second() -> int:
    return os.sysconf("SC_CLK_TCK")


def _descendants() -> list[int]:
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        pid = waiting.pop()
        try:
            tasks = list((_PROC / str(pid) / "task").iterdir())
        except OSError:
            continue
        children = [int(word) for task in tasks for word in _text(task / "children").split()]
        found += children
        waiting += children
    return found


def _stat(pid: int) -> list[int]:
    """What stands behind the name in /proc/PID/stat, `state` as 0; empty when the process is gone."""
    words = _text(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    return [int(word) if word.lstrip("-").isdigit() else 0 for word in words]


def _status_bytes(pid: str) -> int:
    for line in _text(_PROC / pid / "status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _resource_peak() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
