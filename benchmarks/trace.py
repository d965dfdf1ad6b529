"""How long an index takes and how large it is, how fast an answer is traced, and whether planted passages are found.

    python -m benchmarks.trace --documents FOLDER   (a folder of .md or .txt pages)

Prints one JSON object. A passage is copied from a random place of a random document, between words of its own; it is
found when the rarest span's places hold the place that it was copied from.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clearseek.text.sources import open_source
from clearseek.trace.index import Index, build_index, index_directory
from clearseek.trace.kept import documents_sha256
from clearseek.trace.spans import find_spans
from clearseek.trace.words import words_of

TARGETS = {"build_seconds": 5.0, "size_ratio": 5.0, "answer_milliseconds": 100.0, "found_share": 1.0}
ANSWER_BYTES = 2000
PASSAGES = 200


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=Path, required=True, help="a folder of pages")
    texts = [str(document.text) for document in open_source(parser.parse_args().documents)]  # type: ignore[union-attr]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        print(json.dumps(measure(texts), indent=1))


def measure(texts: Sequence[str]) -> dict[str, Any]:
    """All figures, with what was aimed at."""
    size, name = sum(len(text.encode()) for text in texts), documents_sha256(texts)
    started, spent = time.perf_counter(), time.process_time()
    index = build_index(name, texts)
    build_seconds, build_spent = time.perf_counter() - started, time.process_time() - spent
    kept = sum(path.stat().st_size for path in index_directory(name).iterdir())
    copied, mixed = answers(texts)
    result = {
        "documents": len(texts),
        "bytes": size,
        "build_seconds": round(build_seconds, 3),
        "build_processor_seconds": round(build_spent, 3),
        "size_ratio": round(kept / size, 3),
        "answer_milliseconds": {
            "copied": milliseconds(index, copied),
            "mixed": milliseconds(index, mixed),
        },
        "answer_processor_milliseconds": {
            "copied": milliseconds(index, copied, time.process_time),
            "mixed": milliseconds(index, mixed, time.process_time),
        },
        "found_share": found_share(index, texts),
        "targets": TARGETS,
    }
    worst = max(largest for _, largest in result["answer_milliseconds"].values())  # type: ignore[attr-defined]
    result["met"] = {
        "build_seconds": result["build_seconds"] < TARGETS["build_seconds"],  # type: ignore[operator]
        "size_ratio": result["size_ratio"] <= TARGETS["size_ratio"],  # type: ignore[operator]
        "answer_milliseconds": worst < TARGETS["answer_milliseconds"],
        "found_share": result["found_share"] == TARGETS["found_share"],
    }
    return result


def answers(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Answers of 2,000 bytes: copied whole from a document, and patched of twenty documents."""
    rng = random.Random(1)
    long = [text for text in texts if len(text.encode()) > 2 * ANSWER_BYTES]
    copied = [cut(rng.choice(long), ANSWER_BYTES, rng) for _ in range(20)]
    mixed = [" — ".join(cut(rng.choice(long), ANSWER_BYTES // 20, rng) for _ in range(20)) for _ in range(20)]
    return copied, mixed


def cut(text: str, size: int, rng: random.Random) -> str:
    """So many bytes from a random place."""
    raw = text.encode()
    at = rng.randrange(len(raw) - size)
    return raw[at : at + size].decode("utf-8", "ignore")


def milliseconds(
    index: Index, texts: Sequence[str], clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Median and largest time of an answer; the processor's clock doesn't count what else runs."""
    find_spans(words_of(texts[0]), [index.array], 8)
    times = []
    for text in texts:
        started = clock()
        find_spans(words_of(text), [index.array], 8)
        times.append(1000 * (clock() - started))
    return round(statistics.median(times), 2), round(max(times), 2)


def found_share(index: Index, texts: Sequence[str]) -> float:
    """The share of copied passages whose own place is found."""
    rng, found, tried = random.Random(2), 0, 0
    while tried < PASSAGES:
        number = rng.randrange(len(texts))
        words = words_of(texts[number])
        if len(words.starts) < 60:
            continue
        tried += 1
        first = rng.randrange(len(words.starts) - 30)
        begin, end = int(words.starts[first]), int(words.ends[first + 29])
        answer = f"zq {words.text[begin:end].decode()} zq"
        spans = find_spans(words_of(answer), [index.array], 8)
        places = np.concatenate([span.places[0] for span in spans]) if spans else np.empty(0, np.int64)
        found += int(index.starts[number]) + begin in places
    return found / PASSAGES


if __name__ == "__main__":
    main()
