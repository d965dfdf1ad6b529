"""Law 3 at every kind of moment, and at one after the other."""

import pytest
import torch

from clearseek.train.optimizer import Optimizer
from tests.recipe.moments import MOMENTS
from tests.recipe.tiny_run import contents, kill_at, run_in_child, write_recipe


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    torch.set_num_threads(1)
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def expected(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "run"
    assert run_in_child(recipe, out) is None
    return contents(out)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_run_resumes_to_the_same_bytes(recipe, expected, tmp_path, moment):
    """T10."""
    out = tmp_path / "run"
    assert run_in_child(recipe, out, MOMENTS[moment]) == "killed"
    assert run_in_child(recipe, out) is None
    found = contents(out)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_run_killed_again_and_again(recipe, expected, tmp_path):
    """Every session gets only a few steps further."""
    out, kills = tmp_path / "run", 0
    while run_in_child(recipe, out, kill_at(Optimizer, "step", 3, before=False)) == "killed":
        kills += 1
        assert kills < 20
    assert kills >= 4
    assert contents(out) == expected
