"""Experts stacked in one tensor open as those stored one by one, and a wrong number of them is refused."""

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from clearseek.config.errors import InputError
from clearseek.model.checkpoint import load_config, load_model, save_model, save_state
from clearseek.model.families import config_to_published
from tests.model.tiny import CONFIGS, tiny_model

IDS = {"bos_id": 0, "eos_id": 1, "pad_id": 2}


def stacked(tensors, prefix, count):
    """The experts under `prefix` as `transformers` holds them in memory."""

    def take(kind):
        return torch.stack([tensors.pop(f"{prefix}.{number}.{kind}_proj.weight") for number in range(count)])

    gate, up, down = take("gate"), take("up"), take("down")
    return {f"{prefix}.gate_up_proj": torch.cat((gate, up), 1), f"{prefix}.down_proj": down}


@pytest.fixture
def fused(tmp_path):
    """A model, and its checkpoint with stacked experts."""
    model = tiny_model(CONFIGS["deepseek_v3 mtp"])
    save_model(model, tmp_path, **IDS)
    tensors = load_file(tmp_path / "model.safetensors")
    for number in (1, 2, 3):
        tensors |= stacked(tensors, f"model.layers.{number}.mlp.experts", 8)
    save_file(tensors, tmp_path / "model.safetensors")
    return model, tmp_path


def test_stacked_experts_open(fused):
    model, directory = fused
    for name, tensor in load_model(directory).state_dict().items():
        assert tensor.equal(model.state_dict()[name]), name


@pytest.mark.parametrize("count", [12, 2**20])
def test_another_number_of_experts_is_refused_at_once(fused, count):
    _, directory = fused
    config = json.loads((directory / "config.json").read_text()) | {"n_routed_experts": count}
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"gate_up_proj is \[8, 32, 32\], but config\.json"):
        load_model(directory)


def test_a_config_that_promises_millions_of_tensors_is_refused_at_once(tmp_path):
    save_model(tiny_model(CONFIGS["deepseek_v3"]), tmp_path, **IDS)
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"n_routed_experts": 2**20, "num_hidden_layers": 2**11}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"100000 or more tensors .* missing"):
        load_model(tmp_path)


def index_of(directory):
    return json.loads((directory / "model.safetensors.index.json").read_text())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda table, files: table.update(absent=files[0]), "holds absent, which it doesn't"),
        (
            lambda table, files: table.pop("model.norm.weight"),
            "holds model.norm.weight, but the index doesn't name",
        ),
        (
            lambda table, files: table.update({"model.norm.weight": files[0]}),
            "(holds model.norm.weight, but the index says that|holds model.norm.weight, which it doesn't)",
        ),
        (lambda table, files: table.update(x=3), "names 3, which is not a file beside it"),
        (lambda table, files: table.update(x=".."), "names .., which is not a file"),
        (lambda table, files: table.update(x="a\\b"), "which is not a file"),
    ],
)
def test_an_index_that_disagrees_is_refused(change, message, tmp_path):
    model = tiny_model(CONFIGS["llama"])
    save_state(model.config, model.state_dict(), tmp_path, token_ids={}, shard_bytes=10_000)
    index = index_of(tmp_path)
    change(index["weight_map"], sorted(set(index["weight_map"].values())))
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
)
SOUND = [config_to_published(config) for config in CONFIGS.values()]
KEYS = sorted({key for config in SOUND for key in config} | {"quantization_config", "rope_parameters"})


def check_named(error):
    assert "config.json" in str(error)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SOUND), st.dictionaries(st.sampled_from(KEYS), VALUES, min_size=1, max_size=3))
def test_random_configs_give_named_errors(tmp_path_factory, sound, changes):
    directory = tmp_path_factory.getbasetemp() / "random"
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(sound | changes))
    try:
        load_config(directory)
    except InputError as error:
        check_named(error)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a":' * 100_000, '{"a": ' + "9" * 10_000 + "}"])
def test_a_hostile_config_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: "):
        load_config(tmp_path)
