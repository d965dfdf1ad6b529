"""Energy that the machine's own counters tell: RAPL of the processor, NVML of NVIDIA's accelerators.

Both count everything that runs there, other programs and idling included. Where a counter can't be read there is no
figure: estimating is for whoever says so (`cost.py`).
"""

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

RAPL = Path("/sys/class/powercap")
Counter = Callable[[], float]


class EnergyMeter:
    """Joules since the last reading, of the processor and of one accelerator, by those counters that can be read.

    `gpu` is the number of the CUDA device that the run computes on, None without one.
    """

    def __init__(self, gpu: int | None = None, rapl: Path = RAPL) -> None:
        counters = {"cpu_joules": _rapl(rapl), "gpu_joules": None if gpu is None else _nvml(gpu)}
        self._counters = {name: counter for name, counter in counters.items() if counter is not None}
        self._before = {name: counter() for name, counter in self._counters.items()}

    def read(self) -> dict[str, float]:
        """Joules by counter since the last call; empty where nothing can be read."""
        now = {name: counter() for name, counter in self._counters.items()}
        used = {name: now[name] - self._before[name] for name in now}
        self._before = now
        return used


def _rapl(root: Path) -> Counter | None:
    """All packages and their memory together; None where a package can't be read (usually only root may)."""
    domains = [zone for zone in sorted(root.glob("intel-rapl:*")) if _name(zone) not in ("", "psys")]
    packages = [zone for zone in domains if _name(zone).startswith("package")]
    counted = [*packages, *(zone for zone in domains if _name(zone) == "dram")]
    if not packages or not all(_number(zone / "energy_uj") is not None for zone in packages):
        return None
    counters = [_unwrapped(zone) for zone in counted if _number(zone / "energy_uj") is not None]
    return lambda: sum(counter() for counter in counters)


def _unwrapped(zone: Path) -> Counter:
    """Joules of one domain; its counter of microjoules begins anew after `max_energy_range_uj`."""
    span = (_number(zone / "max_energy_range_uj") or 0) + 1
    last, turns = _number(zone / "energy_uj") or 0, 0

    def joules() -> float:
        nonlocal last, turns
        now = _number(zone / "energy_uj")
        if now is not None:
            turns += now < last
            last = now
        return (turns * span + last) / 1e6

    return joules


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _nvml(gpu: int, library: str = "libnvidia-ml.so.1") -> Counter | None:
    """The total of an accelerator since its driver was loaded (Volta and later); None where NVML doesn't tell."""
    try:
        nvml = ctypes.CDLL(library)
        device = ctypes.c_void_p()
        if nvml.nvmlInit_v2() or _handle(nvml, gpu, ctypes.byref(device)):
            return None
        function = nvml.nvmlDeviceGetTotalEnergyConsumption
    except (OSError, AttributeError):
        return None
    millijoules = ctypes.c_ulonglong()
    if function(device, ctypes.byref(millijoules)):
        return None

    def joules() -> float:
        function(device, ctypes.byref(millijoules))  # a reading that fails leaves the last one: nothing used
        return millijoules.value / 1e3

    return joules


def _handle(nvml: ctypes.CDLL, gpu: int, device: object) -> int:
    """NVML counts all devices, CUDA those that CUDA_VISIBLE_DEVICES lists, by number or by name."""
    listed = [word.strip() for word in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if word.strip()]
    word = listed[gpu] if gpu < len(listed) else str(gpu)
    if word.isdigit():
        return int(nvml.nvmlDeviceGetHandleByIndex_v2(int(word), device))
    return int(nvml.nvmlDeviceGetHandleByUUID(word.encode(), device))
