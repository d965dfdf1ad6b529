"""A tiny run that is not all its own: a base model from elsewhere, rows that another model wrote, others' problems."""

import json
from pathlib import Path

from clearseek.recipe.run import run_recipe
from tests.recipe.bases import make_base
from tests.recipe.tiny_run import write_recipe

PROBLEMS = [{"prompt": f"{n} + 1?", "answer": ".*", "verifier": "regex"} for n in range(40)]
RECIPE = """
name = "borrowed"
seed = 2
dtype = "float32"
compile = false

[evaluation]
count = 2
max_completion_tokens = 4
problems = { path = "FOLDER/problems.jsonl", licence = "MIT" }

[stages.sft]
kind = "sft"
start = "FOLDER/published-base"
epochs = 0.2
batch_rows = 2
sequence_length = 64
data = [
  { path = "FOLDER/distilled.jsonl", licence = "MIT", origin = "https://rows.example", teacher = "Reasoner-7B" },
  { path = "FOLDER/untold.jsonl", licence = "CC-BY-NC-4.0", filters = { duplicates = true } },
]

[stages.collect]
kind = "reject"
start = "sft"
problems = { path = "FOLDER/problems.jsonl", licence = "MIT" }
count = 40
samples = 12
max_completion_tokens = 8
licence = "MIT"

[stages.distill]
kind = "distill"
start = "sft"
data = [{ stage = "collect" }]
epochs = 0.2
batch_rows = 2
sequence_length = 64
"""


def borrowed_run(folder: Path) -> Path:
    """Run it in `folder`; the run's directory."""
    rows = [{"prompt": f"{n} + 1?", "thought": f"one after {n}", "answer": str(n + 1)} for n in range(40)]
    texts = [{"text": f"The {n % 17}th note that somebody left."} for n in range(20)]
    for name, lines in (("problems", PROBLEMS), ("distilled", rows), ("untold", texts)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    base = make_base(folder / "published-base", [f"{row['prompt']} {row['thought']}" for row in rows] * 3)
    template = "{% for message in messages %}{{ message.content }}\n{% endfor %}"  # without a thought to end
    (base / "chat_template.jinja").write_text(template)
    recipe = write_recipe(folder, RECIPE.replace("FOLDER", folder.as_posix()))
    run_recipe(recipe, out=folder / "run", device="cpu")
    return folder / "run"
