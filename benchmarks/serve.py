"""The server under load on loopback: many streaming clients beside the bare engine at the same batch.

First the engine alone answers the load, then `clearseek serve` does, then the engine again, each in processes of its
own; the clients compare every answer with what the engine alone said. Then both take turns of a second, since a
machine's speed drifts: this tells what share of the engine's throughput the server keeps. Prints one JSON object:
tokens a second of both, the median time between tokens of both, whose difference is the server's own, answers lost or
crossed, what each tenth of the time was like, and how memory grew.

    make bench-serve                                        # 60 s with 64 clients on runs/r1-mini
    make bench-serve ARGS="--seconds 600 --model DIRECTORY"
"""

import argparse
import asyncio
import itertools
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from benchmarks import in_turns
from clearseek.ledger.machine import describe_machine

TOKENS = 256  # of an answer on average; they end at different times
QUESTIONS = 256  # different ones; clients take turns through them
TENTHS = 10


def main() -> None:
    """Measure and print."""
    chosen = options()
    if chosen.bare:
        print(json.dumps(bare(chosen)))
        return
    alone = run_bare(chosen)
    texts = alone.pop("texts")
    print(f"bare engine: {alone['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
    served = asyncio.run(serve_and_ask(chosen, texts))
    again = run_bare(chosen)
    del again["texts"]
    turns = asyncio.run(take_turns(chosen, texts))
    mean = {name: (alone[name] + again[name]) / 2 for name in alone}
    longer = served["median_seconds_between_tokens"] - mean["median_seconds_between_tokens"]
    report = {
        "machine": describe_machine(),
        "model": Path(chosen.model).name,
        "clients": chosen.clients,
        "tokens_an_answer": TOKENS,
        "bare": {"before": alone, "after": again},
        "served": served,
        "in_turns": turns,
        "throughput_of_bare": turns["share"],
        "throughput_of_bare_apart": served["tokens_per_second"] / mean["tokens_per_second"],
        "overhead_seconds_per_token": longer,
        "overhead_processor_seconds_per_token": served["processor_seconds_per_token"]
        - mean["processor_seconds_per_token"],
    }
    print(json.dumps(report, indent=1))


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="runs/r1-mini")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument(
        "--turns", type=int, default=60, help="of a second, of the engine alone and of the server"
    )
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--count", help=argparse.SUPPRESS)  # a file that the engine alone notes its tokens in
    chosen = parser.parse_args()
    if chosen.turns < 2:
        parser.error(f"--turns {chosen.turns}: at least 2, since their spread is told")
    if not Path(chosen.model).exists():
        parser.error(f"{chosen.model}: no such model; `make train` makes runs/r1-mini, or give --model")
    return chosen


def question(number: int) -> dict[str, Any]:
    """One of the load's requests."""
    content = f"What is {number} + {(number * 7) % 90}?"
    settings = {"seed": number, "temperature": 1.0, "max_tokens": tokens_of(number), "ignore_eos": True}
    return {"messages": [{"role": "user", "content": content}], **settings}


def tokens_of(number: int) -> int:
    """How long its answer is."""
    return TOKENS // 2 + number * 37 % (TOKENS + 1)


# The engine alone


def run_bare(chosen: argparse.Namespace) -> dict[str, Any]:
    """The engine alone, in a process that ends before the server begins."""
    command = bare_command(chosen, min(chosen.seconds, 20.0))
    result: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=300).stdout
    )
    return result


def bare_command(chosen: argparse.Namespace, seconds: float) -> list[str]:
    """What runs it."""
    command = [sys.executable, "-m", "benchmarks.serve", "--bare", "--model", chosen.model]
    return [*command, "--clients", str(chosen.clients), "--seconds", str(seconds)]


def bare(chosen: argparse.Namespace) -> dict[str, Any]:
    """Answers of all questions, then as many tokens as there is time for, always `clients` at once."""
    from clearseek.engine.request import Request, Sampling
    from clearseek.engine.session import open_session
    from clearseek.engine.streams import stream_key

    session = open_session(chosen.model, num_slots=chosen.clients)
    engine, defaults = session.engine, session.defaults
    engine.reserve(chosen.clients, session.model.config.max_position_embeddings)

    def request(number: int) -> Request:
        asked = question(number % QUESTIONS)
        settings = {"temperature": 1.0, "max_tokens": asked["max_tokens"], "ignore_eos": True}
        sampling = Sampling(**defaults | settings)
        prompt = session.tokenizer.encode_chat(asked["messages"])
        return Request(tuple(prompt), stream_key("serve", asked["seed"]), 1, sampling)

    prepared = [request(number) for number in range(QUESTIONS)]
    texts = [
        session.tokenizer.decode(group[0].said, skip_special=True) for group in engine.generate(prepared)
    ]
    begun, between, written, number = {}, [], 0, 0
    noted = np.memmap(chosen.count, np.int64, "r+") if chosen.count else np.zeros(1, np.int64)
    started, used = time.perf_counter(), time.process_time()
    while time.perf_counter() - started < chosen.seconds:
        while len(begun) < chosen.clients:
            (answer,) = engine.submit(prepared[number % QUESTIONS])
            begun[answer] = time.perf_counter()
            number += 1
        for answer, completion in engine.step(at_once=16):
            seconds = time.perf_counter() - begun.pop(answer)
            written += len(completion.tokens)
            between.append(seconds / len(completion.tokens))
        noted[0] = written
    seconds = time.perf_counter() - started
    return {
        "tokens_per_second": written / seconds,
        "processor_seconds_per_token": (time.process_time() - used) / written,
        "median_seconds_between_tokens": statistics.median(between),
        "texts": texts,
    }


# The server and its clients


@dataclass
class Load:
    """What clients saw. `wrong`: answers that differ from the bare engine's."""

    texts: list[str]
    ends: float
    tokens: int = 0
    answers: int = 0
    lost: int = 0
    wrong: int = 0
    chunks: int = 0
    to_first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)


@contextmanager
def serving(chosen: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """A server that is ended afterwards: its address and process."""
    command = [sys.executable, "-m", "clearseek", "serve", chosen.model]
    command += ["--port", "0", "--max-running", str(chosen.clients)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1], process.pid
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(90)


async def serve_and_ask(chosen: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    """Start the server, let clients ask for so many seconds, end it."""
    with serving(chosen) as (address, pid):
        return await ask(chosen, texts, address, pid)


async def ask(chosen: argparse.Namespace, texts: list[str], address: str, pid: int) -> dict[str, Any]:
    """The load itself."""
    started = time.perf_counter()
    load = Load(texts, started + chosen.seconds)
    begun, clients = look(pid, load), start_clients(chosen, address, load)
    looks = [begun]
    while time.perf_counter() < load.ends:
        await asyncio.sleep(chosen.seconds / TENTHS)
        looks.append(look(pid, load))
    await asyncio.gather(*clients)
    ended, memory = look(pid, load), [one.resident_bytes for one in looks[1:]]
    return {
        "seconds": ended.at - started,
        "answers": load.answers,
        "lost": load.lost,
        "crossed_or_wrong": load.wrong,
        "tokens_per_second": load.tokens / (ended.at - started),
        "tokens_a_chunk": load.tokens / max(load.chunks, 1),
        "median_seconds_to_first_token": statistics.median(load.to_first),
        "median_seconds_between_tokens": statistics.median(load.between),
        "processor_seconds_per_token": (ended.processor_seconds - begun.processor_seconds) / load.tokens,
        "tenths": [between(*pair) for pair in itertools.pairwise(looks)],
        "resident_bytes": memory,  # after each tenth of the time
        "memory_growth": memory[-1] / memory[0] - 1,  # in the first each page of the cache is touched once
    }


def start_clients(chosen: argparse.Namespace, address: str, load: Load) -> "list[asyncio.Task[None]]":
    """They ask until the load ends."""
    numbers = range(chosen.clients)
    return [asyncio.create_task(client(address, number, chosen.clients, load)) for number in numbers]


async def take_turns(chosen: argparse.Namespace, texts: list[str]) -> dict[str, Any]:
    """The server under load and the engine alone in turns; an answer lost or crossed is a mistake."""
    load = Load(texts, math.inf)
    with serving(chosen) as (address, pid), TemporaryDirectory() as folder:
        count = Path(folder) / "tokens"
        np.zeros(1, np.int64).tofile(count)
        noted = np.memmap(count, np.int64, "r")
        command = [*bare_command(chosen, 3600.0), "--count", str(count)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as bare_engine:
            clients = start_clients(chosen, address, load)
            try:
                while not (noted[0] and load.tokens) and bare_engine.poll() is None:
                    await asyncio.sleep(0.1)
                if bare_engine.poll() is not None:
                    raise RuntimeError("the engine alone has ended; what it printed says why")
                engine = in_turns.Side(bare_engine.pid, lambda: int(noted[0]))
                found = await in_turns.in_turns(engine, in_turns.Side(pid, lambda: load.tokens), chosen.turns)
                load.ends = 0.0
                await asyncio.gather(*clients)
            finally:
                bare_engine.kill()
    if load.lost or load.wrong:
        raise RuntimeError(f"in turns {load.lost} answers were lost and {load.wrong} crossed or wrong")
    return found


@dataclass(frozen=True)
class Look:
    """The server and its load at some time."""

    at: float  # seconds
    tokens: int  # of answers that have ended
    processor_seconds: float
    resident_bytes: int


def look(pid: int, load: Load) -> Look:
    """How they are now."""
    return Look(time.perf_counter(), load.tokens, processor_seconds(pid), resident_bytes(pid))


def between(first: Look, second: Look) -> dict[str, float]:
    """What happened meanwhile."""
    tokens = second.tokens - first.tokens
    used = second.processor_seconds - first.processor_seconds
    return {
        "tokens_per_second": tokens / (second.at - first.at),
        "processors": used / (second.at - first.at),
    }


async def client(address: str, number: int, clients: int, load: Load) -> None:
    """Ask one question after another."""
    while time.perf_counter() < load.ends:
        try:
            await one_answer(address, number % QUESTIONS, load)
        except (OSError, asyncio.IncompleteReadError, ValueError, KeyError):
            load.lost += 1
        number += clients


async def one_answer(address: str, number: int, load: Load) -> None:
    """Ask a question, read the stream to its end, compare."""
    parts = urlsplit(address)
    body = json.dumps(question(number) | {"stream": True, "stream_options": {"include_usage": True}}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        asked = time.perf_counter()
        writer.write(head.encode() + body)
        pieces, first = [], 0.0
        while piece := await reader.read(1 << 16):
            pieces.append(piece)
            first = first or (time.perf_counter() if b'content":"' in piece and len(pieces) > 1 else 0.0)
        ended = time.perf_counter()
    finally:
        writer.close()
    note(b"".join(pieces), number, load, asked, first, ended)


def note(raw: bytes, number: int, load: Load, asked: float, first: float, ended: float) -> None:
    """Count one answer; ValueError where it has no end."""
    if not raw.startswith(b"HTTP/1.1 200") or b"data: [DONE]" not in raw:
        raise ValueError("no whole answer")
    events = [json.loads(line[6:]) for line in raw.split(b"\n") if line.startswith(b"data: {")]
    deltas = [choice["delta"] for one in events for choice in one["choices"]]
    thought = "".join(delta.get("reasoning_content") or "" for delta in deltas)
    answer = "".join(delta.get("content") or "" for delta in deltas)
    wanted_thought, _, wanted_answer = load.texts[number].partition("</think>")
    load.wrong += (thought, answer) != (wanted_thought, wanted_answer)
    written = events[-1]["usage"]["completion_tokens"]
    load.answers += 1
    load.tokens += written
    load.chunks += len(events)
    load.to_first.append(first - asked)
    load.between.append((ended - asked) / written)


def resident_bytes(pid: int) -> int:
    """Memory that a family of processes holds."""
    pages = [int(Path(f"/proc/{one}/statm").read_text().split()[1]) for one in in_turns.family(pid)]
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def processor_seconds(pid: int) -> float:
    """What it has used of the processors."""
    stats = [Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split() for one in in_turns.family(pid)]
    return sum(int(fields[11]) + int(fields[12]) for fields in stats) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
