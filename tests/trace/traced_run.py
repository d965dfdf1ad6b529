"""A small run on documents of every kind of source, with what its steps really took written down beside it."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from clearseek.recipe.run import run_recipe
from clearseek.text.packing import Rows
from clearseek.train import rl, supervised
from tests.recipe.tiny_run import SMALL_MODEL

RECIPE = (
    """
name = "traced"
seed = 3
dtype = "float32"
compile = false

"""
    + SMALL_MODEL
    + """
[evaluation]
count = 4
max_completion_tokens = 4
probes = 1
problems = { tasks = ["digits"], levels = [1], languages = ["en"] }

[stages.tokenizer]
kind = "tokenizer"
vocab_size = 420
data = [{ path = "FOLDER/pages" }, { problems = { tasks = ["digits"], levels = [1] }, count = 30 }]

[stages.pretrain]
kind = "pretrain"
start = "small"
tokens = 60_000
packing = "PACKING"
batch_rows = 7
micro_batch_rows = 7
sequence_length = 256
evaluate = false
data = [{ path = "FOLDER/pages", hold_out_every = 5 }, { path = "FOLDER/rows.jsonl", teacher = "Reasoner-7B" }]

[stages.sft]
kind = "sft"
start = "pretrain"
batch_rows = 4
epochs = 2.5
micro_batch_rows = 4
sequence_length = 256
evaluate = false
data = [{ problems = { tasks = ["digits"], levels = [1] }, count = 40 }, { path = "FOLDER/rows.jsonl", count = 9 }]

[stages.rl]
kind = "rl"
start = "sft"
problems = { tasks = ["digits"], levels = [1] }
steps = 4
problems_per_step = 2
group_size = 2
max_completion_tokens = 6
micro_batch_rows = 3
sequence_length = 256
evaluate = false
drop_zero_variance = false
sft_weight = 0.1
sft_data = [{ path = "FOLDER/rows.jsonl" }]
"""
)

PAGES = {
    "en": "The lighthouse keeper number {n} wrote {m} letters about the weather of that winter.",
    "ko": "등대지기 {n}번은 그해 겨울 날씨에 대해 편지 {m}통을 썼습니다. 바다는 조용했습니다.",
    "zh": "第{n}号灯塔看守人写了{m}封关于那年冬天天气的信。大海很安静。",
}


@dataclass(frozen=True)
class Taken:
    """What one step of a stage took."""

    stage: str
    step: int
    rows: Rows


def write_documents(folder: Path) -> None:
    """Pages in three languages, and rows of plain and of chat data, all different."""
    for language, page in PAGES.items():
        (folder / "pages" / language).mkdir(parents=True)
        for n in range(25):
            text = page.format(n=n, m=7 * n + 3) * (1 + n % 4)
            (folder / "pages" / language / f"{n:02}.md").write_text(text, encoding="utf-8")
    rows = []
    for n in range(24):
        if n % 3 == 0:
            rows.append({"text": f"A plain note, the {n}th of many: 메모 {n * n}."})
        else:
            rows.append({"prompt": f"What is {n} + {n}?", "thought": f"{n} twice", "answer": str(2 * n)})
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")


def traced_run(
    folder: Path, packing: str = "best_fit", prepare: Callable[[Path], None] | None = None
) -> tuple[Path, list[Taken]]:
    """Run the recipe; the run's directory and what every step took, in order."""
    write_documents(folder)
    if prepare is not None:
        prepare(folder)
    recipe = folder / "traced.toml"
    recipe.write_text(RECIPE.replace("FOLDER", folder.as_posix()).replace("PACKING", packing))
    taken: list[Taken] = []

    def watched(rows: Rows, step: int, batch_rows: int, seed: int, stage: str) -> Rows:
        chosen = original(rows, step, batch_rows, seed, stage)
        taken.append(Taken(stage, step + 1, chosen))
        return chosen

    original = supervised.rows_of_step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supervised, "rows_of_step", watched)
        patch.setattr(rl, "rows_of_step", watched)
        run_recipe(str(recipe), out=folder / "run", device="cpu")
    return folder / "run", taken
