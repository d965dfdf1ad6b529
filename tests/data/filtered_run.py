"""A small run whose pages hold something for every filter, and a user's own file for every licence."""

import json
from pathlib import Path

from clearseek.config.recipe import Evaluation
from clearseek.eval.examine import Examiner
from clearseek.recipe.run import run_recipe
from tests.recipe.tiny_run import SMALL_MODEL

RECIPE = (
    """
name = "filtered"
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
problems = { tasks = ["word_problems"], levels = [1], languages = ["en"] }

[stages.tokenizer]
kind = "tokenizer"
vocab_size = 420
data = [{ path = "FOLDER/pages", licence = "CC-BY-4.0", filters = { personal_data = "mask" } }]

[stages.pretrain]
kind = "pretrain"
start = "small"
tokens = 6000
batch_rows = 4
micro_batch_rows = 4
sequence_length = 128

[[stages.pretrain.data]]
path = "FOLDER/pages"
licence = "CC-BY-4.0"
origin = "https://lighthouse.example"
collected = 2026-11-01
opt_out = "robots.txt heeded"

[stages.pretrain.data.filters]
min_chars = 20
max_chars = 2000
languages = ["en", "ko"]
duplicates = "near"
contamination = true
personal_data = "drop"

[[stages.pretrain.data]]
path = "FOLDER/rows.jsonl"
teacher = "Reasoner-7B"
filters = { personal_data = "mask" }

[[stages.pretrain.data]]
problems = { tasks = ["digits"], levels = [1] }
count = 40
filters = { duplicates = true }

[[stages.pretrain.data]]
problems = { tasks = ["digits"], levels = [1], languages = ["ko"] }
count = 30

[stages.rl]
kind = "rl"
start = "pretrain"
problems = { tasks = ["digits"], levels = [1] }
steps = 1
problems_per_step = 2
group_size = 2
max_completion_tokens = 6
micro_batch_rows = 3
evaluate = false
drop_zero_variance = false
"""
)
LONG = "The keeper of the lighthouse writes every evening what the sea was like and which ships went by the rocks. "
EMAIL, RESIDENT = "minji.kim@mail.co.kr", "900101-1234568"


def evaluation_item() -> str:
    """One of the problems that the recipe's evaluation asks."""
    problems = {"tasks": ["word_problems"], "levels": [1], "languages": ["en"]}
    examiner = Examiner(Evaluation.model_validate({"problems": problems, "count": 4}), 3, None)  # type: ignore[arg-type]
    return examiner.problems[0].prompt


def pages() -> dict[str, str]:
    """File name → text; which rule a page is for stands in its name."""
    kept = f"{LONG}It was the last of nine nights of watch."
    other = {f"story-{n:02}.md": " ".join(f"story{n}word{i}" for i in range(40)) for n in range(20)}
    return {
        "kept.md": kept,
        **other,
        "korean.md": "등대지기는 매일 저녁 바다가 어땠는지 적고, 어떤 배가 바위 곁을 지났는지 적습니다.",
        "a-contaminated.md": f"An old riddle. {evaluation_item()} Nobody knew.",
        "x-copy.md": other["story-03.md"],
        "x-near.md": other["story-04.md"] + " end",
        "x-short.md": "Too short.",
        "x-long.md": " ".join(f"long{i}" for i in range(400)),
        "x-chinese.md": "灯塔看守人每天晚上写下大海的样子，写下哪些船只从礁石旁边驶过，从不间断。",
        "x-email.md": f"Letters to the keeper go to {EMAIL}, who answers on Sundays and on no other day.",
        "x-resident.md": f"등대지기의 번호 {RESIDENT}는 아무에게도 알리지 않는다고 합니다.",
    }  # fmt: skip


def write_documents(folder: Path) -> None:
    """Pages as above, and rows of which one holds an address in its answer."""
    (folder / "pages").mkdir(parents=True)
    for name, text in pages().items():
        (folder / "pages" / name).write_text(text, encoding="utf-8")
    rows = [
        {"prompt": f"What is {n} and {n}?", "thought": f"{n} twice", "answer": str(2 * n)} for n in range(9)
    ]
    rows.append(
        {"prompt": "Whom do I ask?", "thought": "the keeper", "answer": f"Ask {EMAIL} or 010-2345-6789."}
    )
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (folder / "rows.jsonl").write_text(lines, encoding="utf-8")


def filtered_run(folder: Path, recipe: str = RECIPE) -> Path:
    """Run the recipe; the run's directory."""
    write_documents(folder)
    path = folder / "filtered.toml"
    path.write_text(recipe.replace("FOLDER", folder.as_posix()), encoding="utf-8")
    run_recipe(str(path), out=folder / "run", device="cpu")
    return folder / "run"
