"""The engine beside transformers, vLLM and llama.cpp: the same random weights and prompts, turn by turn on two cores.

Every engine is a process of its own that runs only in its turn, at its best settings. Each round has prompts of its
own; figures are medians of the rounds after the first. Prints one JSON object: every figure, what this machine's
memory and products allow, and `targets`, a row each. A peer that is not installed says so.

    make peers peers-vllm peers-llama      # the peers; each can be left out
    make bench-engine                      # or: .venv/bin/python -m benchmarks.engine --shapes dense-0.6b

    make bench-engine ARGS="--shapes dense-0.6b --formats bf16 --peers llama.cpp --out engine.json"      # a part
"""

import argparse
import datetime
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # as `clearseek` does: read when torch is loaded

import torch

from benchmarks.engine_bench.exactness import REQUESTS, measure_exactness
from benchmarks.engine_bench.installed import installed_bytes
from benchmarks.engine_bench.measure import OURS, Plan, measure
from benchmarks.engine_bench.speculating import measure_speculation
from benchmarks.engine_bench.targets import PEERS, TINY, target_rows
from clearseek.engine.bench.limits import (
    DRAM_BYTES,
    bytes_per_token,
    decode_peak,
    read_bandwidth,
    square_peak,
    step_flops,
)
from clearseek.engine.bench.shapes import FORMATS, SHAPES
from clearseek.engine.bench.workloads import WORKLOADS
from clearseek.ledger.machine import describe_machine

FOLDER = Path("runs/bench-engine")
DEVICE = "CLEARSEEK_BENCH_DEVICE"
BOUNDED = "one_stream", "batch_128"  # by what this machine's memory and products allow
EVERY_WORKLOAD = (*WORKLOADS, "cold_start", "mtp", "exact")


def main(arguments: list[str] | None = None) -> None:
    """Measure what was asked for and print the JSON object."""
    chosen = options(arguments)
    cores = sorted(os.sched_getaffinity(0))[: chosen.threads]
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(chosen.threads)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    report = json.loads(chosen.out.read_text()) if chosen.out and chosen.out.exists() else {"results": {}}
    report["installed_bytes"] = installed_bytes("clearseek")
    if "machine" not in report:
        report["machine"] = machine(chosen.threads)
    os.environ[DEVICE] = chosen.device  # our worker reads it
    plan = Plan((OURS, *chosen.peers), chosen.rounds, chosen.seconds, chosen.threads, chosen.folder)
    for shape in chosen.shapes:
        for form in (form for form in SHAPES[shape].formats if form in chosen.formats):
            workloads = [name for name in SHAPES[shape].workloads if name in chosen.workloads]
            if workloads:
                add(report, shape, form, workloads, plan, lambda: keep(report, chosen))
    tiny = [shape for shape in chosen.shapes if shape in TINY]
    if "exact" in chosen.workloads and tiny and chosen.formats:
        print("exact", file=sys.stderr)
        report["exact"] = measure_exactness(tiny, chosen.formats, plan.folder, chosen.exact_requests)
    keep(report, chosen)
    print(json.dumps(report, indent=1))


def add(
    report: dict[str, Any],
    shape: str,
    form: str,
    workloads: list[str],
    plan: Plan,
    write: Callable[[], None],
) -> None:
    """Measure a shape in a format, and `write` after each workload; what the report holds of others stays."""
    cell = report["results"].setdefault(shape, {}).setdefault(form, {"workloads": {}})

    def note(workload: str, records: dict[str, Any]) -> None:
        # measured right behind what they bound: memory that has rested reads faster for a while
        if os.environ[DEVICE] == "cpu" and workload in BOUNDED:
            cell["limits"] = limits(shape, form)
        cell["workloads"][workload] = records
        cell["measured"] = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        write()

    versions = measure(shape, form, workloads, plan, note)
    report["versions"] = report.get("versions", {}) | versions
    if "mtp" in workloads:
        note("mtp", {OURS: measure_speculation(shape, form, plan.rounds, plan.folder)})


def limits(shape: str, form: str) -> dict[str, float]:
    """What the machine allows one stream of this model, or a batch of 128 where that is its workload."""
    config = SHAPES[shape].config
    if "batch_128" in SHAPES[shape].workloads:
        rows = WORKLOADS["batch_128"].num_prompts
        return {
            "flops_per_token": step_flops(config),
            "products_flops_per_second": decode_peak(config, rows, form),
        }
    stream = WORKLOADS["one_stream"]
    needed = bytes_per_token(config, form, stream.prompt_tokens + stream.max_tokens / 2)
    bandwidth = read_bandwidth(int(needed))  # of a buffer of this size: what fits a cache is read faster
    return {
        "bytes_per_token": needed,
        "bytes_per_second": bandwidth,
        "tokens_per_second": bandwidth / needed,
    }


def keep(report: dict[str, Any], chosen: argparse.Namespace) -> None:
    """Bring what is told of the whole up to date, and write the file."""
    report["targets"] = target_rows(report["results"], report["installed_bytes"], report.get("exact"))
    if chosen.out:
        chosen.out.write_text(json.dumps(report, indent=1) + "\n")


def machine(threads: int) -> dict[str, Any]:
    """What it is and what it can do at best."""
    return {
        **describe_machine(),
        "threads": threads,
        "torch": torch.__version__,
        "read_bytes_per_second": read_bandwidth(DRAM_BYTES),
        "product_flops_per_second": {form: square_peak(form) for form in ("fp32", "bf16")},
    }


def options(arguments: list[str] | None) -> argparse.Namespace:
    """Which part to measure, and how."""
    parser = argparse.ArgumentParser(
        prog="benchmarks/engine.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, known in (
        ("shapes", tuple(SHAPES)),
        ("formats", tuple(FORMATS)),
        ("workloads", EVERY_WORKLOAD),
        ("peers", PEERS),
    ):
        parser.add_argument(
            f"--{name}", type=names_of(known), default=known, help=f"of {', '.join(known)}; all by default"
        )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="an engine that took so long takes no further turn"
    )
    parser.add_argument(
        "--exact-requests", type=int, default=REQUESTS, help="that exact compares, on the tiny shapes"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", help="where clearseek computes: cpu, cuda or cuda:N")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the weights are kept")
    parser.add_argument(
        "--out", type=Path, help="keep the object here, beside the parts that it holds already"
    )
    chosen = parser.parse_args(arguments)
    if min(chosen.rounds, chosen.threads, chosen.exact_requests) < 1:
        parser.error("--rounds, --threads and --exact-requests have to be at least 1")
    if chosen.device != "cpu" and {"mtp", "exact"} & set(chosen.workloads):
        parser.error(
            "the workloads mtp and exact are measured on the CPU alone; name others with --workloads"
        )
    if chosen.device != "cpu" and chosen.peers:
        parser.error("the peers measured here compute on the CPU; --device needs --peers none")
    return chosen


def names_of(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    """A comma-separated choice of them, "none" for none."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(name for name in text.split(",") if name not in ("", "none"))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is not one of {', '.join(known)}")
        return names

    return parse


if __name__ == "__main__":
    sys.exit(main())
