"""Finding recipes by path and by name."""

import pytest

from clearseek.config import shipped
from clearseek.config.errors import InputError
from clearseek.config.shipped import find_recipe, shipped_recipes


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    for name in ("r1-mini", "smoke"):
        (tmp_path / f"{name}.toml").write_text("")
    monkeypatch.setattr(shipped, "_FOLDERS", (tmp_path / "missing", tmp_path))
    return tmp_path


def test_bare_name_finds_the_shipped_recipe(recipes):
    assert list(shipped_recipes()) == ["r1-mini", "smoke"]
    assert find_recipe("smoke") == recipes / "smoke.toml"


def test_path_comes_before_name(recipes, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here" / "smoke").write_text("")
    assert str(find_recipe("smoke")) == "smoke"


def test_a_folder_does_not_hide_a_name(recipes, tmp_path, monkeypatch):
    (tmp_path / "here" / "smoke").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert find_recipe("smoke") == recipes / "smoke.toml"


@pytest.mark.parametrize("asked", ["r1-mni", "r1-mimi.toml", "elsewhere/r1-mini.toml"])
def test_missing_recipe_names_the_nearest(recipes, asked):
    with pytest.raises(InputError, match="did you mean r1-mini"):
        find_recipe(asked)


def test_unlike_name_lists_what_there_is(recipes):
    with pytest.raises(InputError, match="brings r1-mini, smoke"):
        find_recipe("zzzzzz")


def test_folder_is_refused(recipes):
    with pytest.raises(InputError, match="is a folder"):
        find_recipe(str(recipes))
