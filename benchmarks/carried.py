"""Puts a finished run's model in place of the one that the package carries, with all that its answers are traced with.

    python -m benchmarks.carried RUN      (make carried RUN=runs/r1-mini)

Then measures it, writes both measurements into docs/records and the model's REPORT.md from them. `make check` says
afterwards which documents still tell the figures of the model before.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from clearseek.claims.records import record_output, write_record
from clearseek.config.errors import RunError
from clearseek.ledger.cost import led_to
from clearseek.ledger.phrases import duration
from clearseek.ledger.record import load_run

PLACE = Path("clearseek/models/r1-mini")
MOST_BYTES = 10_000_000  # of the model with all that comes with it
MEASURED = {
    "carried-eval": f"eval {PLACE.as_posix()} --problems 1200 --json",
    "carried-formats": f"bench formats {PLACE.as_posix()} --problems 300 --json",
}


def main() -> None:
    """Replace, measure and report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    put_in_place(run, PLACE)
    records = {name: measure(name, command) for name, command in MEASURED.items()}
    text = report(run, json.loads((PLACE / "report.json").read_text()), records)
    (PLACE / "REPORT.md").write_text(text, encoding="utf-8")
    print(json.dumps({name: record["command"] for name, record in records.items()}, indent=1))


def put_in_place(run: Path, place: Path) -> None:
    """Export a run's model with its run and its report beside `place`, then move it there. RunError above 10 MB."""
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=f".{place.name}-") as folder:
        made = Path(folder) / place.name
        clearseek(f"export {run} --to hf --dtype bfloat16 --with-run --out {made}")
        shutil.copyfile(run / "report.json", made / "report.json")
        for path in made.iterdir():
            path.chmod(0o644)
        size = sum(path.stat().st_size for path in made.iterdir())
        if size > MOST_BYTES:
            raise RunError(
                f"{run}: its model takes {size:,} bytes with its run; the package carries {MOST_BYTES:,}"
            )
        if place.exists():
            place.rename(Path(folder) / "before")
        made.rename(place)


def measure(name: str, command: str) -> dict[str, Any]:
    """A record of what a command of clearseek prints, kept in docs/records."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(clearseek(command))
        file.flush()
        record = record_output(Path(file.name), f"clearseek {command}")
    write_record(name, record)
    return record


def clearseek(arguments: str) -> str:
    """What a command prints; its notes pass through."""
    command = [sys.executable, "-m", "clearseek", *arguments.split()]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def report(run: Path, told: dict[str, Any], records: dict[str, dict[str, Any]]) -> str:
    """REPORT.md: how the model was made and what it solves, each figure with the place that it comes from."""
    names = led_to(load_run(run), told["result"])
    measured = records["carried-eval"]
    stages = [stage for stage in told["stages"] if stage["eval"] and stage["name"] in names]
    rows, paths = [], []
    for stage in stages:
        low, high = (percent(end) for end in stage["eval"]["ci95"])
        rows.append(f"| {stage['name']} | {percent(stage['eval']['pass_at_1'])} | {low} to {high} |")
        path = f"stages.{stage['name']}.eval"
        paths.append(f"  {path}.pass_at_1 {path}.ci95.{{0,1}}")
    low, high = (percent(end) for end in measured["ci95"])
    languages = {name: percent(share) for name, share in measured["by_language"].items()}
    return TEXT.format(
        result=told["result"],
        millions=f"{records['carried-formats']['parameters'] / 1e6:.1f}",
        seed=told["seed"],
        duration=duration(told["totals"]["wall_seconds"]).replace("\u00a0", " "),
        rows="\n".join(rows),
        paths="\n".join(paths),
        score=percent(measured["pass_at_1"]),
        low=low,
        high=high,
        **languages,
    )


def percent(share: float) -> str:
    """A share of 1 as per cent with a decimal."""
    return f"{100 * share:.1f} %"


TEXT = """# r1-mini, the model that the package carries

The final model (`{result}`) of one run of `recipes/r1-mini.toml` with seed {seed}, its weights rounded to bfloat16: the
chain of DeepSeek-R1 in miniature, from random weights, trained in {duration} on two cores of an Intel Xeon. {millions}
million parameters with its multi-token module, a context of 512 tokens, Korean, Chinese and English. All of its
training data are generated problems and worked solutions; no text of anybody's is in it. `report.json` is the run's
own report.
<!-- claim: report.json totals.wall_seconds carried-formats:parameters -->

It solves problems written like those it has read (arithmetic, countdown, calendars, logic, sorting, units and the like)
and nothing else: it does not know the world, and can't hold a conversation.

| stage of the run | pass@1 | 95 % interval |
|---|---|---|
{rows}
<!-- claim: report.json
{paths}
-->

These weights, on 1,200 problems that no stage has trained on: **{score}** ({low} to {high}); Korean {ko}, Chinese
{zh}, English {en}. To measure it again:
<!-- claim: carried-eval pass_at_1 ci95.{{0,1}} by_language.{{ko,zh,en}} -->

```sh
clearseek eval r1-mini --problems 1200
```

`run.tar.xz` is the run that made it, without weights and states: the sealed ledger, the recipe, and the examples that
its models wrote. What a program generated is generated again. It is unpacked into the user's cache when first used:

```sh
clearseek trace r1-mini "17 + 25 = 42"     # or the button under an answer
clearseek ledger verify r1-mini            # ledger, seal, documents, and that these weights are the run's
clearseek data r1-mini
clearseek cost r1-mini
```

Made by `make carried RUN=runs/r1-mini`. Replaced at releases only.
"""


if __name__ == "__main__":
    main()
