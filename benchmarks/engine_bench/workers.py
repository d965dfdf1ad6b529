"""Engines in processes of their own, asked in lines of JSON; one that isn't asked is stopped and takes no core."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from clearseek.engine.bench.peers import ENVIRONMENTS

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "benchmarks" / "engine_peers"
ANSWER_SECONDS = 900.0  # the longest wait for an answer: vllm compiles while it loads
END_SECONDS = 10.0


@dataclass(frozen=True)
class Peer:
    """An engine: its worker's file, the interpreter it runs in, and what makes that interpreter's environment."""

    script: str
    python: Path
    made_by: str
    options: tuple[str, ...] = ()
    needs: Path | None = None
    reads_gguf: bool = False
    formats: tuple[str, ...] = ("fp32", "bf16")

    def absence(self, format_name: str) -> str | None:
        """Why it can't be measured in a format here; None where it can."""
        if not self.python.exists() or (self.needs and not self.needs.exists()):
            return f"absent: {self.made_by} makes it"
        return None if format_name in self.formats else f"reads no {format_name} weights of this checkpoint"


MARKS = {name: ROOT / path for name, (path, _, _) in ENVIRONMENTS.items()}
MADE_BY = {name: made_by for name, (_, made_by, _) in ENVIRONMENTS.items()}
ENGINES: dict[str, Peer] = {
    "clearseek": Peer(
        "with_clearseek.py", Path(sys.executable), "make setup", formats=("fp32", "bf16", "int8", "int4")
    ),
    "llama.cpp": Peer(
        "with_llama_cpp.py",
        Path(sys.executable),
        MADE_BY["llama.cpp"],
        options=(str(MARKS["llama.cpp"].parent),),
        needs=MARKS["llama.cpp"],
        reads_gguf=True,
        formats=("fp32", "bf16", "int8", "int4"),
    ),
    "vllm": Peer("with_vllm.py", MARKS["vllm"], MADE_BY["vllm"]),
    "transformers": Peer(
        "with_transformers.py", MARKS["transformers"], MADE_BY["transformers"], options=("generate",)
    ),
    "transformers-cb": Peer(
        "with_transformers.py", MARKS["transformers"], MADE_BY["transformers"], options=("generate_batch",)
    ),
}


class WorkerError(Exception):
    """An engine could not do what it was asked; the message is its own."""


class Worker:
    """One engine's process. It runs only while it is asked."""

    def __init__(self, peer: Peer, threads: int, log: Path) -> None:
        """Start it; what it prints besides answers goes to `log`."""
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads])),
        }
        command = [str(peer.python), str(PEERS / peer.script), *peer.options]
        self.started = time.perf_counter()
        with log.open("ab") as errors:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,
            )
        self.log = log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """Its answer; raises WorkerError with its own words where it fails, falls silent or dies."""
        self._signal(signal.SIGCONT)
        try:
            self._write({"do": do, **details})
            answer: dict[str, Any] = json.loads(self._read_line())
        finally:
            self._signal(signal.SIGSTOP)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def seconds_since_start(self) -> float:
        """Wall seconds since its process was started."""
        return time.perf_counter() - self.started

    def close(self) -> None:
        """End it and whatever it started."""
        self._signal(signal.SIGKILL)
        self.process.wait(END_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):  # a question that a dead one never read
                if pipe:
                    pipe.close()

    def _write(self, question: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"ended; see {self.log}") from None

    def _read_line(self) -> bytes:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], ANSWER_SECONDS)
        if not ready:
            self.close()
            raise WorkerError(f"no answer within {ANSWER_SECONDS:.0f} s; see {self.log}")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(f"ended; see {self.log}")
        return line

    def _signal(self, number: signal.Signals) -> None:
        """To its whole group: vllm may start processes of its own."""
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            return
