"""One shape in one format: all engines loaded, taking turns at every workload, each round with prompts of its own."""

import statistics
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.engine_bench.workers import ENGINES, Worker, WorkerError
from clearseek.engine.bench.shapes import SHAPES, Shape, saved, saved_gguf
from clearseek.engine.bench.workloads import COLD_START, WORKLOADS, Workload

OURS = "clearseek"
SCORED = 4  # completions whose log-probabilities are compared with the trainer's


@dataclass(frozen=True)
class Plan:
    """How to measure: engines by name, rounds, the seconds after which an engine takes no further turn."""

    engines: tuple[str, ...]
    rounds: int
    seconds: float
    threads: int
    folder: Path


@dataclass
class Turns:
    """One engine at one workload: seconds of its turns, the first of which warms up, and what it last answered."""

    seconds: list[float] = field(default_factory=list)
    answer: dict[str, Any] = field(default_factory=dict)
    why: str | None = None

    def wants_more(self, limit: float) -> bool:
        """Whether it should take another turn: one that counts at least, while its time lasts."""
        return self.why is None and (len(self.seconds) < 2 or sum(self.seconds) < limit)

    def record(self, counted_tokens: int) -> dict[str, Any]:
        """Median of the turns that count, or why there are none."""
        if self.why is not None:
            return {"why": self.why}
        seconds = statistics.median(self.seconds[1:])
        return {
            "tokens_per_second": counted_tokens / seconds,
            "seconds": seconds,
            "turns": [round(turn, 4) for turn in self.seconds[1:]],
        }


def measure(
    shape_name: str,
    format_name: str,
    workloads: list[str],
    plan: Plan,
    keep: Callable[[str, dict[str, Any]], None],
) -> dict[str, str]:
    """The engines' versions; `keep` is given each workload's records by engine when it is through."""
    shape = SHAPES[shape_name]
    directory = saved(shape.config, plan.folder)
    with ExitStack() as stack:
        workers, absent, versions = _start(stack, directory, format_name, plan)
        for name in (name for name in workloads if name in WORKLOADS):
            print(f"{shape_name} {format_name} {name}", file=sys.stderr)
            keep(name, absent | _take_turns(shape, format_name, WORKLOADS[name], workers, plan))
    if "cold_start" in workloads and format_name == "bf16":
        keep(
            "cold_start",
            {name: cold_start(name, directory, shape, format_name, plan) for name in plan.engines},
        )
    return versions


def _start(
    stack: ExitStack, directory: Path, format_name: str, plan: Plan
) -> tuple[dict[str, Worker], dict[str, Any], dict[str, str]]:
    """The workers that opened the model, why the others did not, and the versions of the former."""
    workers: dict[str, Worker] = {}
    absent: dict[str, Any] = {}
    versions: dict[str, str] = {}
    for name in plan.engines:
        if why := ENGINES[name].absence(format_name):
            absent[name] = {"why": why}
            continue
        worker = stack.enter_context(_worker(name, plan))
        try:
            loaded = worker.ask("load", path=_path(name, directory, format_name), format_name=format_name)
        except WorkerError as error:
            worker.close()
            absent[name] = {"why": str(error)}
            continue
        workers[name], versions[name] = worker, loaded["version"]
    return workers, absent, versions


def _worker(name: str, plan: Plan) -> Worker:
    return Worker(ENGINES[name], plan.threads, plan.folder / f"{name}.log")


def _path(name: str, directory: Path, format_name: str) -> str:
    return str(saved_gguf(directory, format_name) if ENGINES[name].reads_gguf else directory)


def _take_turns(
    shape: Shape, format_name: str, workload: Workload, workers: dict[str, Worker], plan: Plan
) -> dict[str, Any]:
    turns = {name: Turns() for name in workers}
    names = list(workers)
    for number in range(1 + plan.rounds):
        prompts = workload.prompts(shape.config.vocab_size, seed=number)
        for name in names[number % len(names) :] + names[: number % len(names)] if names else []:
            if turns[name].wants_more(plan.seconds):
                _turn(workers[name], turns[name], workload, prompts)
    found = {name: taken.record(workload.counted_tokens) for name, taken in turns.items()}
    if workload.temperature == 0:
        _compare_tokens(turns, found)
    if format_name == "fp32" and OURS in turns and turns[OURS].why is None:
        found[OURS]["log_prob_difference"] = _difference(workers[OURS], turns[OURS].answer, workload)
    return found


def _turn(worker: Worker, turns: Turns, workload: Workload, prompts: list[list[int]]) -> None:
    try:
        answer = worker.ask(
            "generate",
            prompts=prompts,
            max_tokens=workload.max_tokens,
            samples=workload.samples,
            temperature=workload.temperature,
            shares=workload.shares,
        )
    except WorkerError as error:
        turns.why = str(error)
        return
    lengths = [len(ids) for ids in answer["tokens"]]
    if lengths != [workload.max_tokens] * (workload.num_prompts * workload.samples):
        turns.why = f"answered {len(lengths)} completions of {min(lengths)} to {max(lengths)} tokens"
        return
    turns.seconds.append(answer["seconds"])
    turns.answer = {"prompts": prompts, **answer}


def _compare_tokens(turns: dict[str, Turns], found: dict[str, Any]) -> None:
    """How far greedy completions are the same as ours: the share of their tokens before the first other one."""
    ours = turns.get(OURS)
    if ours is None or ours.why is not None:
        return
    for name, taken in turns.items():
        if name != OURS and taken.answer.get("prompts") == ours.answer["prompts"]:
            pairs = list(zip(taken.answer["tokens"], ours.answer["tokens"], strict=True))
            found[name]["tokens_as_ours"] = statistics.mean(_same(*pair) for pair in pairs)


def _same(theirs: list[int], ours: list[int]) -> float:
    first = next(
        (place for place, pair in enumerate(zip(theirs, ours, strict=True)) if pair[0] != pair[1]), None
    )
    return 1.0 if first is None else first / len(ours)


def _difference(worker: Worker, answer: dict[str, Any], workload: Workload) -> float:
    """max |engine − trainer| of the log-probabilities of some completions' tokens."""
    worst = 0.0
    for number, tokens in enumerate(answer["tokens"][:SCORED]):
        prompt = answer["prompts"][number // workload.samples]
        scored = worker.ask("score", prompt=prompt, completion=tokens)["log_probs"]
        pairs = zip(answer["log_probs"][number], scored, strict=True)
        worst = max(worst, *(abs(ours - trainers) for ours, trainers in pairs))
    return worst


def cold_start(name: str, directory: Path, shape: Shape, format_name: str, plan: Plan) -> dict[str, Any]:
    """Seconds from the start of a process to its first token; the model's files are in the disk's cache by then."""
    if why := ENGINES[name].absence(format_name):
        return {"why": why}
    path, turns = _path(name, directory, format_name), Turns()
    prompts = COLD_START.prompts(shape.config.vocab_size, seed=0)
    for _ in range(1 + plan.rounds):
        if not turns.wants_more(plan.seconds):
            break
        with _worker(name, plan) as worker:
            _turn_from_cold(worker, path, format_name, turns, prompts)
    return turns.record(COLD_START.counted_tokens)


def _turn_from_cold(
    worker: Worker, path: str, format_name: str, turns: Turns, prompts: list[list[int]]
) -> None:
    try:
        worker.ask("load", path=path, format_name=format_name)
        _turn(worker, turns, COLD_START, prompts)
    except WorkerError as error:
        turns.why = str(error)
    if turns.why is None:
        turns.seconds[-1] = worker.seconds_since_start()
