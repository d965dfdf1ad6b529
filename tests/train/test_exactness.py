"""Whether a stage of reinforcement learning is exact: by the model's shape, at a price that is on record."""

import re
from pathlib import Path

import pytest
import torch

from clearseek.config.load import load_recipe
from clearseek.config.model import ModelConfig
from clearseek.config.shipped import find_recipe
from clearseek.engine.bench.shapes import SHAPES
from clearseek.model.attention import LatentAttention
from clearseek.train.exactness import PRICES, describe, is_exact, recorded_price
from clearseek.train.learner import Learner
from tests.model.tiny import CONFIGS, LATENT, tiny_model
from tests.train.small import rl_stage

SMALL, LARGE = (ModelConfig(**LATENT | {"kv_lora_rank": rank}) for rank in (64, 512))
GROUPED = SHAPES["dense-0.1b"].config


def test_it_is_the_shape_that_decides():
    assert [is_exact("auto", config) for config in (GROUPED, SMALL, LARGE)] == [True, True, False]
    between = SMALL.model_copy(update={"kv_lora_rank": 65})
    beyond = SMALL.model_copy(update={"kv_lora_rank": 2048})
    assert not is_exact("auto", between)  # nothing was measured there, so the next record holds
    assert not is_exact("auto", beyond)


def test_the_recipe_has_the_last_word():
    assert is_exact(True, LARGE)
    assert not is_exact(False, SMALL)


@pytest.mark.parametrize("name", ["r1-mini", "r1-zero-mini"])
def test_the_recipes_that_were_exact_stay_so(name):
    recipe = load_recipe(find_recipe(name))
    assert recipe.models
    assert all(is_exact("auto", config) for config in recipe.models.values())


def test_prices_are_those_of_the_log():
    log = Path("docs/log.md").read_text(encoding="utf-8")
    (entry,) = re.findall(r"## \S+: sampler and trainer to the bit\n(.*?)\n## ", log, re.DOTALL)
    said = [float(number) for number in re.findall(r"(\d\.\d+) times", entry)]
    assert {round(1 + price.share, 2) for price in PRICES} <= set(said)


def test_one_line_says_how_and_at_what_price():
    assert describe(True, GROUPED, None) == "exact: has no price, for this model's attention has one form"
    assert describe(True, SMALL, None).startswith(
        "exact: a step takes 1.04 times as long with latents of rank 64"
    )
    said = describe(False, LARGE, None)
    assert said.startswith("not exact: learning rows of 1,024 tokens takes 1.37 times as long")
    assert said.endswith("`exact = true` pays it")
    assert describe(True, SMALL, "vLLM samples").startswith("not exact: ")
    assert describe(True, SMALL, "vLLM samples").endswith(": vLLM samples")


def test_attention_behind_an_indexer_has_one_form():
    indexed = LARGE.model_copy(update={"index_topk": 8})
    assert recorded_price(indexed) is None
    assert is_exact("auto", indexed)


def test_an_exact_learner_absorbs_and_another_does_not():
    model = tiny_model(CONFIGS["deepseek_v3"])
    layers = [module for module in model.modules() if isinstance(module, LatentAttention)]
    assert layers
    for exact in (True, False):
        Learner(model, rl_stage(), torch.float32, False, exact=exact)
        assert {layer.absorbs for layer in layers} == {exact}
