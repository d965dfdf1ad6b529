"""What the ledger costs: training with it and without, its size, the time to verify it, and steps computed again.

Two processes train the same beginning of r1-mini by turns, on one thread: one as ever, one that records nothing, hashes
no document and no state and keeps neither states nor rollouts. Beside that the first one's own clock says what share
of its time went into all that, by function, which a busy machine does not blur. Prints one JSON object with `targets`.

    make bench-ledger                          # 5 turns; some minutes
    make bench-ledger ARGS="--run runs/r1-mini"  # replays steps of that run instead of the one that was just trained
    make bench-ledger ARGS="--whole"           # trains all of r1-mini once: the share of the ledger in that
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearseek.ledger.machine import describe_machine

STAGES = ("tokenizer", "pretrain", "cold-start", "rl-reasoning")
ENTRIES = 10_000
SHARE = 0.02  # of a whole run; what it costs to begin and to end weighs more in a run of seconds
TARGETS = {
    "extra_cpu": 0.02,
    "ledger_bytes": 10_000_000,
    "verify_seconds": 1.0,
    "replays_that_differ": 0,
}


def main() -> None:
    """Measure and print; exit code 1 where a target is missed."""
    chosen = options()
    if chosen.child:
        print(json.dumps(train(chosen.child, Path(chosen.out), chosen.whole)))
        return
    if chosen.whole:
        with tempfile.TemporaryDirectory(prefix="clearseek-bench-") as folder:
            report = whole(Path(folder))
    else:
        with tempfile.TemporaryDirectory(prefix="clearseek-bench-") as folder:
            report = measured(Path(folder), chosen)
    print(json.dumps(report, indent=1))
    sys.exit(not all(report[name] <= most for name, most in report["targets"].items()))


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=50, help="random steps to compute again")
    parser.add_argument("--run", help="a finished run to replay; default: the one that was trained")
    parser.add_argument("--whole", action="store_true", help="train all of r1-mini once (ten minutes)")
    parser.add_argument("--child", choices=("on", "off"), help=argparse.SUPPRESS)
    parser.add_argument("--out", help=argparse.SUPPRESS)
    return parser.parse_args()


def measured(folder: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    turns: list[dict[str, float]] = []
    parts: list[dict[str, float]] = []
    for turn in range(chosen.turns):
        order = ("on", "off") if turn % 2 else ("off", "on")
        found = {which: in_child(which, folder / f"{which}-{turn}") for which in order}
        turns.append({which: found[which]["cpu_seconds"] for which in ("on", "off")})
        parts.append(found["on"]["parts"] | {"all": sum(found["on"]["parts"].values()) / turns[-1]["on"]})
        print(
            f"turn {turn + 1}: {turns[-1]['on']:.2f} s with, {turns[-1]['off']:.2f} s without",
            file=sys.stderr,
        )
    run = folder / f"on-{chosen.turns - 1}"
    on, off = (statistics.median(turn[which] for turn in turns) for which in ("on", "off"))
    return {
        "machine": describe_machine(),
        "targets": TARGETS,
        "cpu_seconds": {"with": on, "without": off, "turns": turns},
        "share_of_cpu": statistics.median(one["all"] for one in parts),
        "cpu_seconds_by_part": {
            name: statistics.median(one[name] for one in parts) for name in parts[0] if name != "all"
        },
        "extra_cpu": statistics.median(turn["on"] / turn["off"] for turn in turns) - 1,
        **long_ledger(run, folder / "long"),
        **replayed(Path(chosen.run) if chosen.run else run, chosen.steps),
    }


def whole(folder: Path) -> dict[str, Any]:
    """The share of the ledger's parts in a run of r1-mini as it is shipped."""
    found = in_child("on", folder / "on", "--whole")
    share = sum(found["parts"].values()) / found["cpu_seconds"]
    targets = {"share_of_cpu": SHARE}
    return {"machine": describe_machine(), "targets": targets, "share_of_cpu": share, **found}


def in_child(which: str, out: Path, *flags: str) -> dict[str, Any]:
    """CPU seconds of one training, and of the ledger's parts in it."""
    command = [sys.executable, "-m", "benchmarks.ledger", "--child", which, "--out", str(out), *flags]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CLEARSEEK_LEDGER_KEY": str(out.parent / "key")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=7200)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def train(which: str, out: Path, is_whole: bool = False) -> dict[str, Any]:
    """Train the beginning of r1-mini or all of it in this process; seconds do not count what is loaded before."""
    from clearseek.config.load import load_recipe, resolved
    from clearseek.config.shipped import find_recipe
    from clearseek.config.toml import to_toml
    from clearseek.recipe import run

    values = without_none(resolved(load_recipe(find_recipe("r1-mini"))))
    if not is_whole:
        shorten(values)
    path = out.with_suffix(".toml")
    path.write_text(to_toml(values), encoding="utf-8")
    run.write_report = lambda *_: {}  # type: ignore[assignment]  # it reads the ledger, with or without
    parts = Clock() if which == "on" else record_nothing()
    started = time.process_time()
    run.run_recipe(str(path), out=out, device="cpu")
    return {"cpu_seconds": time.process_time() - started, "parts": parts.seconds if parts else {}}


def shorten(values: dict[str, Any]) -> None:
    """Make of a resolved r1-mini its beginning, some seconds long."""
    values["stages"] = {name: values["stages"][name] for name in STAGES}
    values["stages"]["pretrain"] |= {"tokens": 262_144, "checkpoint_every": 20}
    values["stages"]["pretrain"]["data"][0]["count"] = 6400
    values["stages"]["tokenizer"]["data"][0]["count"] = 600
    values["stages"]["cold-start"]["data"][0]["count"] = 600
    values["stages"]["rl-reasoning"] |= {"steps": 4, "checkpoint_every": 2}
    for name in STAGES[1:]:
        values["stages"][name]["evaluate"] = False
    values |= {"final": "rl-reasoning", "compile": False}


def without_none(values: Any) -> Any:
    """TOML has no null."""
    if isinstance(values, dict):
        return {key: without_none(value) for key, value in values.items() if value is not None}
    return [without_none(value) for value in values] if isinstance(values, list) else values


class Clock:
    """CPU seconds within the functions that only the ledger needs, by name; what one calls of another counts once."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._is_running = False
        for owner, names in parts_of_the_ledger():
            for name in names:
                setattr(owner, name, self._timed(name.lstrip("_"), getattr(owner, name)))

    def _timed(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            if self._is_running:
                return original(*arguments, **named)
            self._is_running, started = True, time.process_time()
            try:
                return original(*arguments, **named)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - started
                self._is_running = False

        return timed


def parts_of_the_ledger() -> list[tuple[Any, tuple[str, ...]]]:
    """The functions that only the ledger needs, by what they belong to."""
    from clearseek.eval.examine import Examination
    from clearseek.ledger.log import Ledger
    from clearseek.recipe import run, stages
    from clearseek.train import corpus
    from clearseek.train.context import StageContext
    from clearseek.train.keeper import StateKeeper

    return [
        (Ledger, ("append", "sync")),
        (Examination, ("answers_sha256",)),
        (StateKeeper, ("hashed",)),
        (StageContext, ("keep_rollout",)),
        (corpus, ("keep_documents", "documents_sha256", "record_source")),
        (stages, ("record_problems", "_record_teacher")),
        (
            run,
            ("seal", "unnamed_files", "write_cost", "conditions_on", "code_sha256", "checkout", "check_own"),
        ),
    ]


def record_nothing() -> None:
    """Take the ledger and all that only serves it out of this process."""
    from clearseek.eval.examine import Examination
    from clearseek.ledger.log import Ledger
    from clearseek.recipe import run, stages
    from clearseek.recipe.silent import SilentLedger
    from clearseek.train import corpus
    from clearseek.train.context import StageContext
    from clearseek.train.keeper import StateKeeper

    class Nothing(SilentLedger):
        replaying = True

    run.Ledger = lambda path: Nothing(0) if path.name == "ledger.jsonl" else Ledger(path)  # type: ignore[misc, assignment]
    run.unnamed_files = lambda *_: []  # type: ignore[assignment]
    run.write_cost = lambda *_, **__: None  # type: ignore[assignment]
    run.conditions_on, run.checkout = lambda _: {}, lambda: None
    run.code_sha256 = lambda: ""
    Examination.answers_sha256 = lambda _: ""  # type: ignore[method-assign]
    StateKeeper.hashed = lambda *_, **__: {}  # type: ignore[method-assign]
    StateKeeper._stays = lambda *_: False  # type: ignore[method-assign]
    StageContext.keep_rollout = lambda *_: {}  # type: ignore[method-assign]
    corpus.keep_documents = lambda *_: {}  # type: ignore[assignment]
    corpus.documents_sha256 = lambda _: ""
    corpus.record_source = stages.record_problems = stages._record_teacher = lambda *_: None  # type: ignore[assignment]


def long_ledger(run: Path, out: Path) -> dict[str, Any]:
    """Size of a ledger of as many steps as `ENTRIES`, in the proportions of a run, and the seconds to verify it."""
    from clearseek.ledger.log import Ledger, read
    from clearseek.ledger.seal import seal
    from clearseek.ledger.verifier import verify_run

    steps = [record for record in read(run / "ledger.jsonl") if record["kind"] == "step"]
    out.mkdir()
    with Ledger(out / "ledger.jsonl") as ledger:
        ledger.append("stage_started", "pretrain")
        for number in range(ENTRIES - 1):
            record = dict(random.Random(number).choice(steps))
            fields = {
                k: v for k, v in record.items() if k not in ("line", "prev", "kind", "stage", "outputs")
            }
            ledger.append("step", "pretrain", **fields | {"step": number + 1})
        seal(out, ledger.lines)
    seconds = []
    for _ in range(5):
        started = time.process_time()
        verify_run(out)
        seconds.append(time.process_time() - started)
    named = sum(len(json.dumps(record.get("outputs", ""))) for record in steps) / len(steps) * ENTRIES
    size = (out / "ledger.jsonl").stat().st_size
    return {"ledger_bytes": int(size + named), "verify_seconds": statistics.median(seconds)}


def replayed(run: Path, count: int) -> dict[str, Any]:
    """How many of some random steps come out otherwise, computed in a new process, and its seconds."""
    started = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "clearseek",
        "ledger",
        "replay",
        str(run),
        "--sample",
        str(count),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3600)
    if not done.stdout:
        raise SystemExit(done.stderr)
    found = json.loads(done.stdout)
    states = sum(path.stat().st_size for path in (run / "states").rglob("*") if path.is_file())
    rollouts = sum(path.stat().st_size for path in (run / "rollouts").rglob("*") if path.is_file())
    return {
        "replays": len(found),
        "replays_that_differ": sum(one["difference"] is not None for one in found),
        "replays_by_stage": {
            name: sum(one["stage"] == name for one in found) for name in sorted({o["stage"] for o in found})
        },
        "replay_seconds": time.perf_counter() - started,
        "states_bytes": states,
        "rollouts_bytes": rollouts,
    }


if __name__ == "__main__":
    main()
