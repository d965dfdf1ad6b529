"""The GSM8K recipe from end to end on the real files, with a base of random weights."""

import json
import os
from pathlib import Path

import pytest

from clearseek.config.shipped import find_recipe
from clearseek.ledger.log import read
from clearseek.recipe.run import run_recipe
from tests.recipe.bases import make_base

DATA = Path(os.environ.get("CLEARSEEK_DATA", Path(__file__).parents[2] / "../shared/data")) / "gsm8k"

pytestmark = [
    pytest.mark.skipif(not (DATA / "test.jsonl").is_file(), reason="GSM8K's files are not here"),
    pytest.mark.timeout(900),
]


def test_two_steps_on_the_real_problems(tmp_path):
    lines = (DATA / "train.jsonl").read_text("utf-8").splitlines()
    questions = [json.loads(line)["question"] for line in lines]
    base = make_base(tmp_path / "base", questions[:2000], vocab_size=1024, context=1024)
    problems = f'{{ path = "{DATA / "train.jsonl"}", held_out_path = "{DATA / "test.jsonl"}" }}'
    overrides = [f"before.start={base}", f"rl.start={base}", f"rl.problems={problems}"]
    overrides += [
        f"evaluation.problems={problems}",
        "evaluation.count=8",
        "evaluation.max_completion_tokens=16",
    ]
    overrides += ["rl.steps=2", "rl.problems_per_step=4", "rl.group_size=2", "rl.max_completion_tokens=16"]
    overrides += ["rl.drop_zero_variance=false", "compile=false"]
    result = run_recipe(str(find_recipe("gsm8k")), overrides, out=tmp_path / "run", device="cpu")
    records = read(result.run_dir / "ledger.jsonl")
    steps = [record for record in records if record["kind"] == "step"]
    assert [record["step"] for record in steps] == [1, 2]
    assert all(
        sum(record[verdict] for verdict in ("correct", "wrong", "unparseable")) == 8 for record in steps
    )
    assert all(record["error"] == 0 for record in steps)
    examinations = [record for record in records if record["kind"] == "eval"]
    assert [record["stage"] for record in examinations] == ["before", "rl"]
    assert all(record["n"] == 8 and set(record["by_task"]) == {"gsm8k"} for record in examinations)
    test_questions = {json.loads(line)["question"] for line in (DATA / "test.jsonl").open(encoding="utf-8")}
    samples = read(result.run_dir / "samples.jsonl")
    assert samples
    assert all(sample["prompt"] in test_questions for sample in samples)
    assert (result.run_dir / "checkpoints" / "rl" / "model.safetensors").is_file()
