"""A tiny recipe and a run of it that ended; whoever changes one copies it first."""

import pytest
import torch

from tests.recipe.tiny_run import run_in_child, write_recipe


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny products: a second thread would only get in the way."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="session")
def finished(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert run_in_child(recipe, out) is None
    return out
