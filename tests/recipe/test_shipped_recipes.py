"""The recipes that come with clearseek: each loads, and is what its name says."""

import pytest

from clearseek.config.load import load_recipe
from clearseek.config.shipped import find_recipe, shipped_recipes
from clearseek.recipe.workload import work_of
from clearseek.train.flops import num_parameters


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
