"""Recipes that are wrong: one line that names the key, whatever stands where."""

import copy
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.config.load import apply_override, parse_recipe, resolved
from clearseek.config.shipped import shipped_recipes
from clearseek.config.toml import to_toml


def smoke():
    return tomllib.loads(shipped_recipes()["smoke"].read_text(encoding="utf-8"))


def places(value, place=()):
    """Every place in nested tables and lists."""
    if place:
        yield place
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*place, key))


ANYTHING = [5, -1, 0, 1.5, True, "", "x", "2024", [], [1], ["x"], [[1]], {}, {"a": 1}, [{}]]
ANYTHING += [10**30, float("nan"), float("inf")]


@given(place=st.sampled_from(list(places(smoke()))), value=st.sampled_from(ANYTHING))
@settings(max_examples=300, deadline=None)
def test_whatever_stands_anywhere_is_read_or_refused_in_one_line(place, value):
    values = smoke()
    table = values
    for key in place[:-1]:
        table = table[key]
    table[place[-1]] = copy.deepcopy(value)
    told = refusal(values)
    assert told is None or (told.startswith("r.toml: ") and "\n" not in told)


def refusal(values):
    """What a recipe is refused with; None where it is read."""
    try:
        parse_recipe(values, "r.toml")
    except InputError as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed='7'", "seed = '7': input should be a valid integer"),
        ("seed=true", "seed = True: input should be a valid integer"),
        ("seed=9223372036854775808", "seed = 9223372036854775808: input should be less than 9223372036854775808"),
        ("pretrain.batch_rows=16.0", "stages.pretrain.batch_rows = 16.0: input should be a valid integer"),
        ("pretrain.evaluate=1", "stages.pretrain.evaluate = 1: input should be a valid boolean"),
        ("pretrain.optimizer.learning_rate=inf", "learning_rate = inf: input should be a finite number"),
        ("pretrain.data=5", "stages.pretrain.data = 5: input should be a list"),
        ("evaluation=3", "evaluation = 3: input should be a table"),
        ("models.teacher=3", "models.teacher = 3: input should be a table"),
        ("stages=5", "stages = 5: input should be a table"),
        ("models.teacher.num_layers=1000000000000", "num_layers = 1000000000000: input should be less than or equal"),
        ("models.teacher.hidden_size=1000000000000", "hidden_size = 1000000000000: input should be less than or equal"),
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_size_is_refused(override, message):
    values = smoke()
    apply_override(values, override)
    assert message in refusal(values)


def test_numbers_may_be_written_without_a_point():
    values = smoke()
    apply_override(values, "cold-start.epochs=2")
    assert parse_recipe(values, "r.toml").stages["cold-start"].epochs == 2.0


@pytest.mark.parametrize("profile", ["'r2'", "5", "[]"])
def test_a_wrong_profile_is_told_alone(profile):
    """Not with everything that the profile would have filled in."""
    values = smoke()
    apply_override(values, f"rl-reasoning.profile={profile}")
    told = refusal(values)
    assert told.startswith("r.toml: stages.rl-reasoning.profile = ")
    assert ";" not in told


def test_many_mistakes_are_told_by_the_first_few():
    told = refusal({"models": {"a": {"x": 1}}})
    assert told.startswith("r.toml: name is missing; models.a.family is missing; ")
    assert told.endswith("; and 4 more")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokens", "'tokens' is not of the form stage.key=value"),
        ("=5", "'=5' is not of the form"),
        ("pretrain..tokens=5", "'pretrain..tokens=5' is not of the form"),
        ("pretrian.tokens=5", "no stage 'pretrian'; did you mean 'pretrain'?"),
        ("stages.pretrian.tokens=5", "no stage 'pretrian'; did you mean 'pretrain'?"),
        ("models.techer.num_heads=4", "no model 'techer'; did you mean 'teacher'?"),
        ("evalution.count=5", "no stage 'evalution'; did you mean 'evaluation'?"),
        ("seed.x=5", "'seed' is not a table"),
        ("pretrain.data.0.count=5", "'data' is not a table"),
    ],
)
def test_an_override_of_nothing_is_refused(override, message):
    with pytest.raises(InputError) as error:
        apply_override(smoke(), override)
    assert message in str(error.value)


@pytest.mark.parametrize("values", [{}, {"stages": 5}, {"stages": [1]}, {"stages": {"pretrain": 5}}])
def test_an_override_of_what_is_no_recipe_is_refused_too(values):
    with pytest.raises(InputError):
        apply_override(values, "pretrain.tokens=5")


@pytest.mark.parametrize("name", list(shipped_recipes()))
def test_a_recipe_written_out_is_the_same_recipe(name):
    recipe = parse_recipe(tomllib.loads(shipped_recipes()[name].read_text(encoding="utf-8")), name)
    written = to_toml(without_none(resolved(recipe)))
    assert resolved(parse_recipe(tomllib.loads(written), name)) == resolved(recipe)


def without_none(values):
    if isinstance(values, dict):
        return {key: without_none(value) for key, value in values.items() if value is not None}
    return [without_none(value) for value in values] if isinstance(values, list) else values
