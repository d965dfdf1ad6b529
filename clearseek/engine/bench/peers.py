"""The engine beside its peers: they live in environments of a checkout, and so does what runs them."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError, RunError

_SCRIPT = Path("benchmarks/engine.py")
_WORKLOADS = ("one_stream", "streams_16", "prefill_512")
_SECONDS = 3600.0
# peer → what of it lies in a checkout, what makes that, and the module by which another environment has it
ENVIRONMENTS: dict[str, tuple[Path, str, str]] = {
    "transformers": (Path(".venv-peers/bin/python"), "make peers", "transformers"),
    "vllm": (Path(".venv-vllm/bin/python"), "make peers-vllm", "vllm"),
    "llama.cpp": (Path(".peers-llama/version"), "make peers-llama", "llama_cpp"),
}


def installed_peers(place: Path = Path()) -> dict[str, str | None]:
    """By peer where it was found, nothing of it run: the checkout's environment at `place`, this one; None: absent."""
    found = dict[str, str | None]()
    for name, (path, _, module) in ENVIRONMENTS.items():
        if (place / path).exists():
            found[name] = path.parts[0]
        else:
            found[name] = "this environment" if importlib.util.find_spec(module) else None
    return found


def check_checkout(place: Path = Path()) -> None:
    """InputError where `place` is no checkout, which alone can measure peers."""
    if not (place / _SCRIPT).is_file():
        raise InputError(
            "--peers needs a checkout of clearseek, where `make peers peers-vllm peers-llama` makes them: run it in one"
        )


def bench_peers(formats: Sequence[str], shape: str = "dense-0.1b", place: Path = Path()) -> dict[str, Any]:
    """Tokens a second by workload, format and engine, ours too, in turns on one shape; an absent one says so.

    InputError where `place` is no checkout, RunError where the benchmark fails.
    """
    check_checkout(place)
    command = [
        sys.executable, "-m", "benchmarks.engine", "--shapes", shape, "--formats", ",".join(formats),
        "--workloads", ",".join(_WORKLOADS), "--rounds", "1", "--seconds", "20",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=place, env=dict(os.environ), stdout=subprocess.PIPE, timeout=_SECONDS, check=True
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"the benchmark beside peers took longer than {_SECONDS:.0f} s") from None
    except subprocess.CalledProcessError as error:
        raise RunError(f"the benchmark beside peers failed with exit code {error.returncode}") from None
    cells = json.loads(done.stdout)["results"][shape]
    return {"shape": shape, "formats": {form: cell["workloads"] for form, cell in cells.items()}}
