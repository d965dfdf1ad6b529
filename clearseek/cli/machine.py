"""What `clearseek doctor` asks the machine beyond what a run records: instructions, compiler, device."""

import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# What decides our speed on a processor: the flag the kernel shows, and the name people know.
_INSTRUCTIONS = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_bf16": "AVX-512 bf16",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_tile": "AMX",
    "amx_bf16": "AMX bf16",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "bf16",
}


def machine_facts(device: str = "auto") -> dict[str, Any]:
    """Everything `clearseek doctor` prints about this machine; imports torch."""
    from clearseek.ledger.machine import available_memory_bytes, describe_machine
    from clearseek.model.device import choose_device

    choice = choose_device(device)
    return {
        **describe_machine(),
        "instructions": instruction_sets(),
        "memory_available_bytes": available_memory_bytes(),
        "disk_free_bytes": shutil.disk_usage(Path.cwd()).free,
        "compiler": shutil.which("g++") or shutil.which("clang++"),
        "packages": {name: _version(name) for name in ("clearseek", "torch", "numpy", "tokenizers")},
        "device": str(choice.device),
        "dtype": str(choice.dtype).removeprefix("torch."),
        "reason": choice.reason,
    }


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> list[str] | None:
    """Vector instructions that matter to us, by their usual names; None where the system does not say."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, words = line.partition(":")
        if name.strip().lower() in ("flags", "features"):
            flags = set(words.split())
            return [label for flag, label in _INSTRUCTIONS.items() if flag in flags]
    return None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
