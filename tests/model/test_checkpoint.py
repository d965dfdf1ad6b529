"""Checkpoints come back bit by bit; torn, wrong and hostile ones are refused by name."""

import json
import os
import pickle
import re
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from clearseek.cli.main import main
from clearseek.config.errors import InputError, InputWarning, RunError
from clearseek.model import checkpoint
from clearseek.model.checkpoint import (
    load_config,
    load_model,
    load_tensors,
    save_model,
    save_state,
    save_tensors,
)
from clearseek.model.families import config_from_published, config_to_published
from clearseek.model.inspect import inspect_model
from tests.model.published import config_json
from tests.model.tiny import CONFIGS, some_tokens, tiny_model

IDS = {"bos_id": 0, "eos_id": 1, "pad_id": 2}
TOKEN_IDS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}


@pytest.fixture
def saved(tmp_path):
    """A small checkpoint with everything in it, to be spoilt."""
    save_model(tiny_model(CONFIGS["deepseek_v3 mtp"]), tmp_path / "model", **IDS)
    return tmp_path / "model"


def change_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_weights(directory, change):
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def assert_same_state(one, two):
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert tensor.dtype == two[name].dtype
        assert torch.equal(tensor, two[name]), name


# Round trips


@pytest.mark.parametrize("name", CONFIGS)
def test_a_checkpoint_comes_back_bit_by_bit(name, tmp_path):
    model = tiny_model(CONFIGS[name])
    save_model(model, tmp_path, **IDS)
    back = load_model(tmp_path)
    assert config_to_published(back.config) == config_to_published(model.config)
    assert_same_state(back.state_dict(), model.state_dict())
    tokens = some_tokens(model.config, rows=1, length=5)
    segments = torch.ones_like(tokens)
    assert torch.equal(back(tokens, segments).states, model(tokens, segments).states)
    assert all(parameter.requires_grad for parameter in back.parameters())
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    assert json.loads((tmp_path / "generation_config.json").read_text()) == TOKEN_IDS


def test_the_same_model_gives_the_same_bytes(tmp_path):
    model = tiny_model(CONFIGS["deepseek_v3 mtp"])
    for name in ("one", "two"):
        save_model(model, tmp_path / name, **IDS)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_bfloat16_keeps_the_selection_bias_exact(tmp_path):
    model = tiny_model(CONFIGS["deepseek_v3 tied"])
    save_model(model, tmp_path, **IDS, dtype=torch.bfloat16)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"
    back = load_model(tmp_path, dtype=torch.bfloat16)
    for name, tensor in back.state_dict().items():
        expected = model.state_dict()[name]
        if name.endswith("selection_bias"):
            assert torch.equal(tensor, expected)
        else:
            assert torch.equal(tensor, expected.bfloat16())


def test_large_checkpoints_are_sharded(tmp_path):
    model = tiny_model(CONFIGS["deepseek_v3 mtp"])
    save_state(model.config, model.state_dict(), tmp_path, token_ids=TOKEN_IDS, shard_bytes=30_000)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(files) > 3
    assert files[0].name == f"model-00001-of-{len(files):05d}.safetensors"
    stored = {path.name: load_file(path) for path in files}
    assert index["weight_map"] == {name: file for file, tensors in stored.items() for name in tensors}
    sizes = {file: sum(tensor.nbytes for tensor in tensors.values()) for file, tensors in stored.items()}
    assert max(sizes.values()) <= 30_000
    assert index["metadata"]["total_size"] == sum(sizes.values())
    assert_same_state(load_model(tmp_path).state_dict(), model.state_dict())

    files[1].unlink()
    with pytest.raises(RunError, match=rf"{files[1].name}: missing; copy or download it again"):
        load_model(tmp_path)


def test_multi_token_modules_carry_copies_as_published(saved):
    tensors = load_file(saved / "model.safetensors")
    assert torch.equal(tensors["model.layers.3.embed_tokens.weight"], tensors["model.embed_tokens.weight"])
    assert torch.equal(tensors["model.layers.3.shared_head.head.weight"], tensors["lm_head.weight"])


def test_a_checkpoint_without_the_copies_opens(saved):
    def drop(tensors):
        del tensors["model.layers.3.embed_tokens.weight"], tensors["model.layers.3.shared_head.head.weight"]

    change_weights(saved, drop)
    assert load_model(saved).config.num_mtp_layers == 1


def test_a_tied_head_may_be_stored_if_it_is_the_embedding(tmp_path):
    save_model(tiny_model(CONFIGS["qwen3"]), tmp_path, **IDS)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")

    change_weights(tmp_path, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    load_model(tmp_path)
    change_weights(tmp_path, lambda t: t["lm_head.weight"].add_(1))
    with pytest.raises(InputError, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        load_model(tmp_path)


# Weights that don't fit


def test_another_shape_is_refused_with_both(saved, monkeypatch):
    def no_allocation(*_, **__):
        raise AssertionError("allocated before the check")

    monkeypatch.setattr(checkpoint.Decoder, "to_empty", no_allocation)
    change_config(saved, intermediate_size=64)
    with pytest.raises(
        InputError, match=r"layers\.0\.mlp\.gate_proj\.weight is \[48, 32\], but .* \[64, 32\]"
    ):
        load_model(saved)


def test_impossibly_large_dimensions_are_refused_without_memory(saved):
    change_config(saved, hidden_size=2 * 10**6, vocab_size=10**6)
    with pytest.raises(InputError, match=r"embed_tokens\.weight is \[97, 32\], but .* \[1000000, 2000000\]"):
        load_model(saved)


def test_missing_and_left_over_tensors_are_named(saved):
    change_config(saved, num_hidden_layers=2, num_nextn_predict_layers=0)
    with pytest.raises(InputError, match=r"tensors \(.*model\.layers\.2\..*, …\) left over that config.json"):
        load_model(saved)
    change_config(saved, num_hidden_layers=5)
    with pytest.raises(
        InputError, match=r"\d+ tensors \(model\.layers\.4\..*\) missing that config.json asks"
    ):
        load_model(saved)
    change_config(saved, num_hidden_layers=3, num_nextn_predict_layers=1)
    change_weights(saved, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(InputError, match=r"1 tensor \(model\.norm\.weight\) missing"):
        load_model(saved)


HY3 = config_json("HYV3ForCausalLM", 0) | {"num_nextn_predict_layers": 2}


def published_of(published, tmp_path):
    """A checkpoint of a published config, with random weights."""
    model = tiny_model(config_from_published(published, tmp_path / "config.json"))
    save_model(model, tmp_path, **IDS)
    return model


def test_hy3s_multi_token_modules_come_back(tmp_path):
    model = published_of(HY3, tmp_path)
    assert len(model.mtp) == 2
    change_weights(tmp_path, lambda t: t.update({"model.layers.3.shared_head.weight": torch.ones(97, 32)}))
    with pytest.warns(
        InputWarning, match=r": 1 x model\.layers\.\*\.shared_head\.\* left unread; saving will lose"
    ):
        back = load_model(tmp_path)
    assert_same_state(back.state_dict(), model.state_dict())
    stored = load_file(tmp_path / "model.safetensors")
    ours, joined = stored["model.layers.4.eh_proj.weight"], back.mtp[1].join.weight
    assert torch.equal(ours, joined)
    change_weights(tmp_path, lambda t: t.pop("model.layers.4.final_layernorm.weight"))
    with pytest.raises(InputError, match=r"1 tensor \(model\.layers\.4\.final_layernorm\.weight\) missing"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("architecture", "count", "names"),
    [
        ("Ernie4_5_MoeForCausalLM", 1, ["mtp_emb_norm.0.weight", "mtp_block.0.mlp.up_proj.weight"]),
        ("MiMoV2FlashForCausalLM", 3, ["mtp.layers.2.hnorm.weight", "mtp.layers.1.pre_mlp_layernorm.weight"]),
    ],
)
def test_modules_that_config_json_may_not_count_are_those_stored(architecture, count, names, tmp_path):
    published = config_json(architecture, 0) | {"num_nextn_predict_layers": count}
    model = published_of(published, tmp_path)
    stored = load_file(tmp_path / "model.safetensors")
    assert {f"model.{name}" for name in names} <= stored.keys()
    path = tmp_path / "config.json"
    said = json.loads(path.read_text())
    assert said.pop("num_nextn_predict_layers") == count
    path.write_text(json.dumps(said))
    back = load_model(tmp_path)
    assert back.config == model.config
    assert_same_state(back.state_dict(), model.state_dict())
    assert inspect_model(tmp_path).mtp_parameters == sum(p.numel() for p in model.mtp.parameters())
    change_weights(tmp_path, lambda tensors: tensors.pop(f"model.{names[0]}"))
    with pytest.raises(InputError, match=rf"1 tensor \(model\.{re.escape(names[0])}\) missing"):
        load_model(tmp_path)


def test_modules_that_stay_unread_are_named(tmp_path, capsys):
    """By loading in one line, by `info`, and only where they are."""
    names, pattern = ["layers.80.enorm.weight", "layers.80.hnorm.weight"], "model.layers.80.*"
    model = published_of(config_json("HYV3ForCausalLM", 0), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(tmp_path)
    assert inspect_model(tmp_path).unread == {}
    tables = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    change_weights(tmp_path, lambda t: t.update({f"model.{name}": torch.ones(32) for name in names} | tables))
    with pytest.warns(InputWarning) as caught:
        back = load_model(tmp_path)
    assert_same_state(back.state_dict(), model.state_dict())
    (warning,) = caught
    assert str(warning.message) == f"{tmp_path}: 2 x {pattern} left unread; saving will lose them"
    assert inspect_model(tmp_path).unread == {pattern: 2}
    assert main(["info", str(tmp_path)]) == 0
    assert f"left unread   2 tensors {pattern}; saving loses them" in capsys.readouterr().out.splitlines()
    assert main(["export", str(tmp_path), "--to", "hf", "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().err == f"warning: {warning.message}\n"


def test_quantised_weights_are_refused(saved):
    change_weights(saved, lambda t: t.update({"model.norm.weight": torch.ones(32, dtype=torch.int8)}))
    with pytest.raises(InputError, match=r"model\.norm\.weight is stored as I8; quantised"):
        load_model(saved)
    for settings, message in (
        ({"quant_method": "awq"}, r"quant_method = 'awq' is not supported; known ones: fp8, mxfp4"),
        ("fp8", r"quant_method = None is not supported"),
        ({"quant_method": "fp8"}, r"weight_block_size = None is not supported"),
        ({"quant_method": "fp8", "weight_block_size": [128, 0]}, r"weight_block_size = \[128, 0\] is not"),
    ):
        change_config(saved, quantization_config=settings)
        with pytest.raises(InputError, match=rf"config\.json: quantization_config.*{message}"):
            load_model(saved)


def test_old_rotary_buffers_are_passed_over(tmp_path):
    save_model(tiny_model(CONFIGS["llama"]), tmp_path, **IDS)
    key = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_weights(tmp_path, lambda tensors: tensors.update({key: torch.ones(4)}))
    expected = tiny_model(CONFIGS["llama"]).state_dict()
    assert all(
        torch.equal(tensor, expected[name]) for name, tensor in load_model(tmp_path).state_dict().items()
    )


# Torn files


def test_a_file_cut_anywhere_is_named(saved):
    path = saved / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 4, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(
            RunError, match=r"model\.safetensors: torn or not a safetensors file .* another checkpoint"
        ):
            load_model(saved)
        with pytest.raises(RunError, match=r"model\.safetensors: torn"):
            load_tensors(path)
    path.write_bytes(b"\x80\x04K\x01.")
    with pytest.raises(RunError, match="torn or not a safetensors file"):
        load_model(saved)


@pytest.mark.parametrize("text", ["", "{", '{"model_type":', "[]", "3", '"x"', "\xff"])
def test_a_torn_config_is_named(saved, text):
    (saved / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=r"config\.json: is (JSON but not an object|not JSON)"):
        load_model(saved)


def test_a_torn_index_is_named(tmp_path):
    model = tiny_model(CONFIGS["llama"])
    save_state(model.config, model.state_dict(), tmp_path, token_ids=TOKEN_IDS, shard_bytes=10_000)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text("{}")
    with pytest.raises(InputError, match=r"index\.json: has no weight_map"):
        load_model(tmp_path)
    index.write_text(index.read_text()[:-1])
    with pytest.raises(InputError, match=r"index\.json: is not JSON"):
        load_model(tmp_path)


def test_an_index_does_not_reach_outside_its_directory(tmp_path, saved):
    outside = tmp_path / "outside.safetensors"
    shutil.move(saved / "model.safetensors", outside)
    for name in ("../outside.safetensors", str(outside)):
        (saved / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": name}}))
        with pytest.raises(
            InputError, match=r"index\.json: names .*outside\.safetensors, which is not a file"
        ):
            load_model(saved)


class Exploding:
    """Unpickling this would make a directory."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_pickle_is_never_opened(saved, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (saved / "model.safetensors").unlink()
    (saved / "pytorch_model.bin").write_bytes(pickle.dumps(Exploding()))
    with pytest.raises(InputError, match=r"holds only pytorch_model\.bin, a pickle, .* convert it"):
        load_model(saved)
    assert not (tmp_path / "exploded").exists()


# Train state


def test_train_state_comes_back_with_every_dtype(tmp_path):
    tensors = {
        "adamw.exp_avg.layers.0.norm": torch.randn(3, 4),
        "adamw.step": torch.tensor(17),
        "rng": torch.get_rng_state(),
        "half": torch.randn(5).bfloat16(),
        "view": torch.randn(4, 6).T,
        "flags": torch.tensor([True, False]),
        "nothing": torch.empty(0, 3),
    }
    save_tensors(tmp_path / "state.safetensors", tensors, {"step": "17"})
    back, metadata = load_tensors(tmp_path / "state.safetensors")
    assert metadata == {"step": "17"}
    assert_same_state(back, tensors)
    with pytest.raises(RunError, match=r"absent\.safetensors: missing"):
        load_tensors(tmp_path / "absent.safetensors")


def test_a_config_can_be_read_without_weights(saved):
    (saved / "model.safetensors").unlink()
    assert load_config(saved) == CONFIGS["deepseek_v3 mtp"]
