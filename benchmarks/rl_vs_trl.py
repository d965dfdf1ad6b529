"""Reinforcement learning beside TRL: CPU seconds until the same held-out accuracy, from the same checkpoint.

Both sides get the same start (trained and exported by us), the same problems in the same chat format, the same
verifier and the same completion budget, each its own best settings, and run one after the other in processes of
their own.
Prints one JSON object with `ratio` = TRL's CPU seconds ÷ ours (medians over the rounds).

    make bench-rl                  # or: .venv-peers/bin/python benchmarks/rl_vs_trl.py --rounds 3
"""

import argparse
import json
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
START_STAGES = ("tokenizer", "pretrain", "cold-start")


def make_start(folder: Path) -> Path:
    """r1-mini's base after its cold start, which mostly answers at once; trained unless the folder holds it."""
    from clearseek.config.shipped import find_recipe
    from clearseek.config.toml import to_toml

    recipe = tomllib.loads(find_recipe("r1-mini").read_text(encoding="utf-8"))
    recipe |= {"name": "rl-start", "final": START_STAGES[-1]}
    recipe["models"] = {"teacher": recipe["models"]["teacher"]}
    recipe["stages"] = {name: recipe["stages"][name] for name in START_STAGES}
    written, run = folder / "start.toml", folder / "start"
    written.write_text(to_toml(recipe), encoding="utf-8")
    command = [sys.executable, "-m", "clearseek", "run", str(written), "--out", str(run)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return run / "checkpoints" / START_STAGES[-1]


def write_problems(folder: Path, start: Path, count: int, held_out: int) -> dict[str, Path]:
    """Training and held-out problems, for us as prompts and for TRL as rendered text."""
    from clearseek.tasks.registry import Split, generate
    from clearseek.text.tokenizer import Tokenizer

    chat = Tokenizer.load(start).chat
    paths = {}
    splits: list[tuple[str, Split, int]] = [("train", "train", count), ("eval", "held_out", held_out)]
    for name, split, size in splits:
        problems = generate(None, ["en", "ko", "zh"], [1, 2], size, 7, split, "bench")
        for side in ("ours", "trl"):
            path = paths[f"{name}-{side}"] = folder / f"{name}-{side}.jsonl"
            rows = [
                {
                    "prompt": p.prompt if side == "ours" else chat.render_problem(p.prompt),
                    "answer": p.answer,
                    "verifier": p.verifier,
                }
                for p in problems
            ]
            path.write_text(
                "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8"
            )
    return paths


def run_side(
    side: str, start: Path, paths: dict[str, Path], chosen: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """One side's record; whatever it prints on the way goes to stderr."""
    script = {"ours": "rl_ours.py", "trl": "trl_peer.py"}[side]
    command = [sys.executable, str(HERE / script), "--start", str(start)]
    command += ["--problems", str(paths[f"train-{side}"]), "--eval", str(paths[f"eval-{side}"])]
    command += ["--target", str(chosen.target), "--max-steps", str(chosen.max_steps), "--seed", str(seed)]
    command += ["--max-tokens", str(chosen.max_tokens)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def main() -> None:
    """Make the start, run both sides in turn, print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--target", type=float, default=0.75, help="held-out accuracy, sampled at temperature 1"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-steps", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-rl"))
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    start = make_start(chosen.folder)
    paths = write_problems(chosen.folder, start, 20_000, 512)
    records: dict[str, list[dict[str, Any]]] = {"ours": [], "trl": []}
    for seed in range(chosen.rounds):
        for side, kept in records.items():
            kept.append(run_side(side, start, paths, chosen, seed))
            print(side, kept[-1]["cpu_seconds"], kept[-1]["accuracy_curve"], file=sys.stderr)
    print(json.dumps(summary(records, chosen), indent=1))


def summary(records: dict[str, list[dict[str, Any]]], chosen: argparse.Namespace) -> dict[str, Any]:
    """Medians of both sides; no ratio where a side missed the target."""
    medians = {side: statistics.median(r["cpu_seconds"] for r in kept) for side, kept in records.items()}
    reached = {side: sum(r["reached"] for r in kept) for side, kept in records.items()}
    complete = all(count == chosen.rounds for count in reached.values())
    return {
        "target": chosen.target,
        "rounds": chosen.rounds,
        "reached": reached,
        "cpu_seconds": medians,
        "ratio": round(medians["trl"] / medians["ours"], 2) if complete else None,
        "wall_seconds": {s: statistics.median(r["wall_seconds"] for r in k) for s, k in records.items()},
        "steps": {side: [r["steps"] for r in kept] for side, kept in records.items()},
        "curves": {side: [r["accuracy_curve"] for r in kept] for side, kept in records.items()},
        "settings": {side: kept[0]["settings"] for side, kept in records.items()},
        "versions": records["trl"][0]["versions"],
    }


if __name__ == "__main__":
    main()
