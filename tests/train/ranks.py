"""Runs a function on several gloo ranks of this machine: forked, met through a file, tracebacks kept."""

import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.fsdp  # here, so that it isn't imported in every child
import torch.distributed.tensor

TIMEOUT_SECONDS = 60.0
GRACE_SECONDS = 2.0  # for the others to say why they failed too


def on_ranks(
    size: int,
    function: Callable[..., Any],
    folder: Path,
    *arguments: Any,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> list[Any]:
    """What `function(*arguments)` returned on every rank; AssertionError shows what any of them raised."""
    torch.set_num_threads(1)  # threads that exist already would not survive the fork
    meeting = folder / f"meeting-{time.monotonic_ns()}"
    meeting.mkdir()
    running = {rank: _fork(rank, size, meeting, function, arguments) for rank in range(size)}
    deadline, failures = time.monotonic() + timeout_seconds, {}
    while running and time.monotonic() < deadline:
        for rank, child in list(running.items()):
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del running[rank]
            if status:
                failures[rank] = (meeting / f"{rank}.txt").read_text() or f"ended with status {status}"
                deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        time.sleep(0.005)
    for rank, child in running.items():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        failures[rank] = "still ran and was killed"
    assert not failures, "\n".join(f"rank {rank}: {text}" for rank, text in sorted(failures.items()))
    return [pickle.loads((meeting / f"{rank}.pickle").read_bytes()) for rank in range(size)]


def _fork(rank: int, size: int, meeting: Path, function: Callable[..., Any], arguments: tuple) -> int:
    """The process id of a child that runs the function as one rank and leaves its result in a file."""
    report = meeting / f"{rank}.txt"
    report.touch()
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        rendezvous, timeout = f"file://{meeting}/rendezvous", timedelta(seconds=TIMEOUT_SECONDS)
        dist.init_process_group("gloo", rendezvous, timeout, world_size=size, rank=rank)
        result = function(*arguments)
        (meeting / f"{rank}.pickle").write_bytes(pickle.dumps(result))
        dist.destroy_process_group()
        status = 0
    except BaseException:
        report.write_text(traceback.format_exc())
        raise
    finally:
        os._exit(status)
