"""Loading a sharded checkpoint of 2 GB beside `cat SHARDS >/dev/null`, from a warm cache.

Both take turns, each load in a process of its own. Prints one JSON object: seconds of both (medians), how fast loading
is as a share of cat's speed, and the peak of memory over that before loading as a multiple of the model's bytes.

    make bench-loading             # or: .venv-peers/bin/python benchmarks/loading.py --runs 5 --dtype float32

Loads as `clearseek.load` does, where parameters are the file's own pages if dtype and order allow; `--copied` as
training does.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from clearseek.config.model import ModelConfig
from clearseek.model.checkpoint import load_model, save_state
from clearseek.model.decoder import Decoder

SHARD_BYTES = 500_000_000
WAIT_SECONDS = 600.0
SHAPE = ModelConfig(
    family="llama",
    vocab_size=32_768,
    hidden_size=2048,
    num_layers=16,
    num_heads=16,
    num_key_value_heads=8,
    intermediate_size=7168,
)  # 1.04 billion parameters: 2.1 GB in bf16


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--copied", action="store_true", help="never lend the file's pages")
    parser.add_argument("--load", type=Path, help=argparse.SUPPRESS)  # what a process of its own does
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(measure(arguments.load, getattr(torch, arguments.dtype), not arguments.copied)))
        return
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(compare(Path(name), arguments), indent=2))


def compare(directory: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Medians over `runs` turns of each, after one that doesn't count."""
    runs, options = arguments.runs, ["--dtype", arguments.dtype, *["--copied"] * arguments.copied]
    model = Decoder(SHAPE).bfloat16()
    save_state(SHAPE, model.state_dict(), directory, token_ids={}, shard_bytes=SHARD_BYTES)
    del model
    shards = sorted(directory.glob("*.safetensors"))
    turns = [(cat(shards), load_apart(directory, options)) for _ in range(1 + runs)][1:]
    cat_seconds = statistics.median(seconds for seconds, _ in turns)
    load_seconds = statistics.median(loaded["seconds"] for _, loaded in turns)
    return {
        "stored_bytes": sum(path.stat().st_size for path in shards),
        "shards": len(shards),
        "dtype": arguments.dtype,
        "copied": arguments.copied,
        "threads": torch.get_num_threads(),
        "cat_seconds": cat_seconds,
        "load_seconds": load_seconds,
        "share_of_cat_speed": cat_seconds / load_seconds,
        "peak_memory_ratio": statistics.median(loaded["peak_memory_ratio"] for _, loaded in turns),
    }


def cat(shards: list[Path]) -> float:
    """Seconds of reading the shards and throwing them away."""
    start = time.perf_counter()
    subprocess.run(["cat", *shards], stdout=subprocess.DEVNULL, check=True, timeout=WAIT_SECONDS)
    return time.perf_counter() - start


def load_apart(directory: Path, options: list[str]) -> dict[str, float]:
    """`measure` in a new process."""
    command = [sys.executable, __file__, "--load", str(directory), *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=WAIT_SECONDS)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def measure(directory: Path, dtype: torch.dtype, mapped: bool) -> dict[str, float]:
    """Seconds of loading, and what the process grew by at its largest over what the model takes."""
    before = peak_bytes()
    start = time.perf_counter()
    model = load_model(directory, dtype, mapped=mapped)
    seconds = time.perf_counter() - start
    grown = peak_bytes() - before
    return {
        "seconds": seconds,
        "peak_memory_ratio": grown / sum(parameter.nbytes for parameter in model.parameters()),
    }


def peak_bytes() -> int:
    """The most that this process ever held; `getrusage` would count what its parent held before it began."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        sys.exit("benchmarks/loading.py needs Linux's /proc/self/status to measure memory")
    return int(found[1]) * 1024


if __name__ == "__main__":
    main()
