"""A tiny run with a stage of every kind that has steps, for replaying them; and ways to change what it recorded."""

import json
from pathlib import Path

from clearseek.ledger.lines import read_back
from clearseek.ledger.log import Ledger
from clearseek.ledger.seal import seal
from clearseek.train import reject
from tests.recipe.tiny_run import RECIPE, run_in_child, write_recipe

STAGES = """
[stages.sft]
kind = "sft"
start = "rl"
epochs = 3.0
data = [{{ path = "{notes}" }}]
batch_rows = 2
sequence_length = 48
checkpoint_every = 2
evaluate = false

[stages.reject]
kind = "reject"
start = "sft"
problems = {{ tasks = ["digits"], levels = [1] }}
count = 3
samples = 2
max_completion_tokens = 4

[stages.distill]
kind = "distill"
start = "pretrain"
data = [{{ stage = "reject" }}]
batch_rows = 1
sequence_length = 64
evaluate = false
"""
NOTES = [
    f"note {number}: the sea is {word}"
    for number, word in enumerate(("calm", "grey", "wide", "deep", "cold") * 4)
]


def recipe_in(folder: Path) -> str:
    """The recipe's path, with the documents of its sft stage beside."""
    notes = folder / "notes.jsonl"
    notes.write_text("".join(json.dumps({"text": text}) + "\n" for text in NOTES))
    return write_recipe(folder, RECIPE + STAGES.format(notes=notes))


def run_of(recipe: str, out: Path, prepare=None, **settings) -> Path:
    """Run it; the reject stage keeps whatever was sampled, for an untrained model is never right."""

    def keep_all():
        reject._is_good = lambda item, least: True
        if prepare is not None:
            prepare()

    assert run_in_child(recipe, out, keep_all, **settings) is None
    return out


def rewrite(run: Path, change) -> None:
    """Every record through `change` (None leaves it out), mended and sealed again, as whoever has the key could."""
    lines = (run / "ledger.jsonl").read_bytes().splitlines()
    changed = [change(read_back(json.loads(line))) for line in lines]
    records = [record for record in changed if record is not None]
    (run / "ledger.jsonl").unlink()
    with Ledger(run / "ledger.jsonl") as ledger:
        for record in records:
            fields = {
                key: value for key, value in record.items() if key not in ("line", "prev", "kind", "stage")
            }
            ledger.append(record["kind"], record.get("stage"), **fields)
        seal(run, ledger.lines)
