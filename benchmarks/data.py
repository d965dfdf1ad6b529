"""What looking through documents costs: processor seconds of each analysis, of one process.

Reads every .md and .txt file below a folder, and the questions of a data file as evaluation items; prints one JSON
object with the seconds of each analysis (the least of some rounds), of all together as a run's record takes them, and
the targets with whether they are met.

    make bench-data                # or: .venv/bin/python -m benchmarks.data --data DIR --items FILE
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clearseek.data.census import census
from clearseek.data.contamination import contamination
from clearseek.data.duplicates import exact_repeats, near_repeats
from clearseek.data.languages import language_words
from clearseek.data.personal import find_personal_data
from clearseek.data.words import words_of
from clearseek.ledger.machine import describe_machine
from clearseek.text.sources import open_source
from clearseek.trace.kept import text_of

DATA = Path(os.environ.get("CLEARSEEK_DATA", Path(__file__).parent.parent / "../shared/data"))
TARGET_SECONDS = 5.0  # for 12 MB


def least_seconds(rounds: int, do: Callable[[], Any]) -> float:
    """The least processor time of some rounds."""
    seconds = []
    for _ in range(rounds):
        started = time.process_time()
        do()
        seconds.append(time.process_time() - started)
    return round(min(seconds), 3)


def measure(texts: list[str], items: list[str], rounds: int) -> dict[str, float]:
    """Seconds by analysis; `whole` is what one `source` record takes."""
    words = words_of(texts)
    analyses: dict[str, Callable[[], Any]] = {
        "words": lambda: words_of(texts),
        "languages": lambda: language_words(texts),
        "exact_repeats": lambda: exact_repeats(texts),
        "near_repeats": lambda: near_repeats(words),
        "personal_data": lambda: find_personal_data(texts),
        "evaluation_items": lambda: contamination(items, words),
        "whole": lambda: census(texts, {"items": items}),
    }
    return {name: least_seconds(rounds, do) for name, do in analyses.items()}


def main() -> None:
    """Read, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA / "docs", help="folder of pages")
    parser.add_argument(
        "--items", type=Path, default=DATA / "gsm8k" / "test.jsonl", help="lines with `question`"
    )
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    texts = [text_of(document) for document in open_source(chosen.data)]
    items = [json.loads(line)["question"] for line in chosen.items.read_text("utf-8").splitlines()]
    num_bytes = sum(len(text.encode()) for text in texts)
    seconds = measure(texts, items, chosen.rounds)
    found = census(texts, {"items": items})
    target = TARGET_SECONDS * num_bytes / 12e6
    print(json.dumps({
        "documents": len(texts),
        "bytes": num_bytes,
        "items": len(items),
        "cpu_seconds": seconds,
        "found": {key: found[key] for key in ("languages", "duplicates", "personal_data")},
        "targets": {"whole_cpu_seconds": {"at_most": round(target, 2), "met": seconds["whole"] <= target}},
        "machine": describe_machine(),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
