"""Published quantised layouts: dequantised by the formula, element by element, and opened whole."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from clearseek.config.errors import InputError
from clearseek.model.checkpoint import load_model, save_model
from clearseek.model.quantised import dequantise_block_fp8, dequantise_mxfp4, num_blocks, quantise_block_fp8
from clearseek.model.shards import Plain
from clearseek.model.sources import open_sources
from clearseek.model.stored import open_tensors
from tests.model.tiny import CONFIGS, tiny_model

IDS = {"bos_id": 0, "eos_id": 1, "pad_id": 2}
MXFP4 = {"quant_method": "mxfp4"}
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]


@pytest.mark.parametrize("shape", [(256, 128), (130, 257), (5, 3), (128, 129)])
def test_block_fp8_is_value_times_the_scale_of_its_block(shape, random):
    weight = random(*shape).detach().to(torch.float8_e4m3fn)
    scales = random(*num_blocks(shape, (128, 128))).detach().abs()
    found = dequantise_block_fp8(weight, scales, (128, 128))
    for row in range(0, shape[0], 7):
        for column in range(0, shape[1], 5):
            value = weight[row, column].float() * scales[row // 128, column // 128]
            assert found[row, column] == value
    assert found.dtype == torch.float32


def test_block_fp8_comes_back_within_its_rounding(random):
    weight = random(200, 300).detach() * 3
    weight[:128, :128] = 0
    values, scales = quantise_block_fp8(weight, (128, 128))
    assert values.dtype == torch.float8_e4m3fn
    assert scales.shape == (2, 3)
    back = dequantise_block_fp8(values, scales, (128, 128))
    assert back[:128, :128].eq(0).all()
    # three bits of mantissa; below, steps of the smallest subnormal
    assert ((back - weight).abs() <= weight.abs() / 16 + scales.max() * 2**-10).all()
    again, same = quantise_block_fp8(back, (128, 128))
    assert torch.allclose(dequantise_block_fp8(again, same, (128, 128)), back, rtol=1e-6)


def test_mxfp4_is_two_values_in_a_byte_times_a_power_of_two():
    blocks = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    for exponent in (0, 1, 100, 127, 130, 254):
        found = dequantise_mxfp4(blocks, torch.full((1, 16), exponent, dtype=torch.uint8)).flatten()
        for byte in range(256):
            for half, nibble in enumerate((byte & 15, byte >> 4)):
                value = E2M1[nibble & 7] * (-1 if nibble & 8 else 1) * 2.0 ** (exponent - 127)
                assert found[2 * byte + half] == torch.tensor(value)


def test_mxfp4_is_as_transformers_has_it(tmp_path):
    mxfp4 = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = torch.randint(0, 256, (3, 10, 4, 16), dtype=torch.uint8)
    scales = torch.randint(110, 140, (3, 10, 4), dtype=torch.uint8)
    save_file({"x_blocks": blocks, "x_scales": scales}, tmp_path / "x.safetensors")
    expected = mxfp4.convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)
    with open_tensors(tmp_path / "x.safetensors") as file:
        sources = open_sources({name: Plain(file, name) for name in file.entries}, MXFP4, tmp_path)
        assert list(sources) == ["x"]
        assert sources["x"].shape == tuple(expected.shape)
        assert sources["x"].rows(0, 3).equal(expected)
        assert sources["x"].rows(1, 2).equal(expected[1:2])


@pytest.fixture
def published(tmp_path):
    """A DeepSeek-V3 as published: projections in fp8 with scales of blocks, everything else in bf16."""
    save_model(tiny_model(CONFIGS["deepseek_v3 mtp"]), tmp_path, **IDS, dtype=torch.bfloat16)
    block = (24, 10)  # no size is a multiple of it
    tensors = load_file(tmp_path / "model.safetensors")
    for name in [name for name in tensors if name.endswith("_proj.weight") and "eh_proj" not in name]:
        values, scales = quantise_block_fp8(tensors[name], block)
        tensors |= {name: values, f"{name}_scale_inv": scales}
    save_file(tensors, tmp_path / "model.safetensors")
    config = json.loads((tmp_path / "config.json").read_text())
    settings = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8"}
    config["quantization_config"] = settings | {"weight_block_size": list(block)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_a_checkpoint_in_block_fp8_opens(published, monkeypatch):
    monkeypatch.setattr("clearseek.model.filling.CHUNK_BYTES", 1000)  # several stretches of rows
    tensors = load_file(published / "model.safetensors")
    state = load_model(published).state_dict()
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    expected = dequantise_block_fp8(tensors[name], tensors[f"{name}_scale_inv"], (24, 10))
    assert state["layers.1.feed_forward.gate_up"][3, 16:].equal(expected)
    name = "model.layers.0.mlp.down_proj.weight"
    expected = dequantise_block_fp8(tensors[name], tensors[f"{name}_scale_inv"], (24, 10))
    assert state["layers.0.feed_forward.down.weight"].equal(expected)
    assert (
        load_model(published, torch.bfloat16)
        .state_dict()["layers.0.feed_forward.down.weight"]
        .equal(expected.bfloat16())
    )


def test_scales_that_do_not_fit_are_named(published):
    tensors = load_file(published / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    save_file(tensors | {f"{name}_scale_inv": torch.ones(1, 1)}, published / "model.safetensors")
    with pytest.raises(
        InputError, match=rf"{name}_scale_inv is \[1, 1\], but {name} of .* makes it \[2, 5\]"
    ):
        load_model(published)
    del tensors[f"{name}_scale_inv"]
    save_file(tensors, published / "model.safetensors")
    with pytest.raises(InputError, match=rf"{name} is stored as F8_E4M3; quantised"):
        load_model(published)
