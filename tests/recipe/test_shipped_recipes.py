"""The recipes that come with clearseek: each loads, and is what its name says."""

import json

import pytest

from clearseek.config.load import load_recipe
from clearseek.config.shipped import find_recipe, shipped_recipes
from clearseek.ledger.log import read
from clearseek.recipe.run import run_recipe
from clearseek.recipe.workload import work_of
from clearseek.train.flops import num_parameters
from tests.recipe.bases import make_base


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_it_loads_under_its_own_name(name):
    recipe = load_recipe(shipped_recipes()[name])
    assert recipe.name == name
    assert recipe.description


def test_r1_zero_rewards_right_answers_alone():
    recipe = load_recipe(find_recipe("r1-zero-mini"))
    kinds = [stage.kind for stage in recipe.stages.values()]
    assert kinds == ["tokenizer", "pretrain", "rl"]
    stage = recipe.stages["r1-zero"]
    assert stage.start == "pretrain"
    assert stage.language_consistency_weight == 0
    assert not stage.sft_data


def test_r1_zero_starts_from_the_shape_of_r1_mini():
    zero, mini = load_recipe(find_recipe("r1-zero-mini")), load_recipe(find_recipe("r1-mini"))
    assert zero.models["base"] == mini.models["teacher"]


def test_docs_holds_the_same_pages_out_everywhere():
    recipe = load_recipe(shipped_recipes()["docs"])
    (tokenizer,), (pretrain,) = recipe.stages["tokenizer"].data, recipe.stages["pretrain"].data
    assert tokenizer == pretrain
    assert pretrain.hold_out_every == 20
    assert 2e6 < num_parameters(work_of(recipe, "pretrain").config) < 8e6


def test_gsm8k_never_trains_on_the_test_file():
    recipe = load_recipe(find_recipe("gsm8k"))
    assert recipe.stages["rl"].problems.held_out_path == recipe.evaluation.problems.held_out_path
    assert recipe.evaluation.problems.held_out_path == "data/gsm8k/test.jsonl"
    assert recipe.stages["rl"].problems.path == "data/gsm8k/train.jsonl"


def write_gsm8k(path, numbers):
    """Lines in the layout of the real files."""
    question = "Ann has {} pens and buys 1. How many?"
    lines = [{"question": question.format(n), "answer": f"More.\n#### {n + 1}"} for n in numbers]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def test_gsm8k_runs_from_end_to_end(tmp_path):
    train = write_gsm8k(tmp_path / "train.jsonl", range(30))
    test = write_gsm8k(tmp_path / "test.jsonl", range(50, 60))
    base = make_base(tmp_path / "base", ["Ann has 7 pens and buys 1. How many?"])
    problems = f'{{ path = "{train}", held_out_path = "{test}" }}'
    overrides = [f"before.start={base}", f"rl.start={base}", f"rl.problems={problems}", "rl.steps=2"]
    overrides += [
        f"evaluation.problems={problems}",
        "evaluation.count=6",
        "evaluation.max_completion_tokens=8",
    ]
    overrides += ["rl.problems_per_step=3", "rl.group_size=2", "rl.max_completion_tokens=8", "compile=false"]
    result = run_recipe(str(find_recipe("gsm8k")), overrides, out=tmp_path / "run", device="cpu")
    records = read(result.run_dir / "ledger.jsonl")
    assert [r["stage"] for r in records if r["kind"] == "eval"] == ["before", "rl"]
    asked = {sample["prompt"] for sample in read(result.run_dir / "samples.jsonl")}
    assert asked <= {f"Ann has {n} pens and buys 1. How many?" for n in range(50, 60)}


def test_docs_measures_the_pages_it_never_read(tmp_path):
    for language, word in (("en", "page"), ("ko", "쪽")):
        (tmp_path / "docs" / language).mkdir(parents=True)
        for n in range(40):
            (tmp_path / "docs" / language / f"{n:02}.md").write_text(
                f"# {word} {n}\n" + f"{word} {n * n}. " * 20
            )
    data = f'[{{ path = "{tmp_path / "docs"}", hold_out_every = 20 }}]'
    overrides = [
        f"tokenizer.data={data}",
        f"pretrain.data={data}",
        "tokenizer.vocab_size=320",
        "compile=false",
    ]
    overrides += ["models.reader.num_layers=1", "models.reader.hidden_size=64", "models.reader.head_dim=16"]
    overrides += [
        "models.reader.intermediate_size=64",
        "pretrain.tokens=60_000",
        "pretrain.sequence_length=64",
    ]
    result = run_recipe(str(shipped_recipes()["docs"]), overrides, out=tmp_path / "run", device="cpu")
    records = read(result.run_dir / "ledger.jsonl")
    read_in = [record for record in records if record["kind"] == "data" and record["stage"] == "pretrain"]
    assert [(record["documents"], record["train_held_out_overlap"]) for record in read_in] == [(76, 0)]
    (examination,) = (record for record in records if record["kind"] == "eval")
    (bits,) = examination["bits_per_byte"].values()
    assert 0 < bits < 2.5, "pages this regular are not learnt"
