"""Parameters that are the checkpoint's own pages: the same numbers, never written back, copies where need be."""

import os

import pytest
import torch

from clearseek.engine.runners import inference_copy
from clearseek.model.checkpoint import load_model, save_model
from clearseek.model.mapped import map_parameters
from clearseek.model.source import load_source
from clearseek.model.stored import load_tensors, save_tensors
from tests.model.tiny import CONFIGS, FAMILY_CONFIGS, some_tokens, tiny_model

pytestmark = pytest.mark.skipif(os.name != "posix", reason="files are mapped on POSIX systems only")
IDS = {"bos_id": 0, "eos_id": 1, "pad_id": 2}
EVERY = CONFIGS | {name: config for name, config in FAMILY_CONFIGS.items() if name.endswith(" 0")}


@pytest.fixture
def lent(monkeypatch):
    """The names that were lent by the last load."""
    names = []

    def noting(*arguments):
        found = map_parameters(*arguments)
        names[:] = found
        return found

    monkeypatch.setattr("clearseek.model.loading.map_parameters", noting)
    return names


@pytest.mark.parametrize("name", EVERY)
def test_a_mapped_model_is_the_copied_one(name, tmp_path, lent):
    save_model(tiny_model(EVERY[name]), tmp_path, **IDS)
    copied, mapped = load_model(tmp_path), load_model(tmp_path, mapped=True)
    assert "embedding.weight" in lent
    state = mapped.state_dict()
    for key, tensor in copied.state_dict().items():
        assert torch.equal(tensor, state[key]), key
    assert {key: p.shape for key, p in mapped.named_parameters()} == {
        key: p.shape for key, p in copied.named_parameters()
    }


def test_dense_layers_are_lent_almost_whole(tmp_path, lent):
    """Gate and up lie one behind the other in a file, keys and values do not."""
    model = tiny_model(CONFIGS["llama"])
    save_model(model, tmp_path, **IDS)
    load_model(tmp_path, mapped=True)
    left = {name for name, _ in model.named_parameters()} - set(lent)
    assert left == {f"layers.{number}.attention.kv.weight" for number in range(3)}


def test_writing_changes_the_model_and_not_the_file(tmp_path):
    save_model(tiny_model(CONFIGS["qwen3"]), tmp_path, **IDS)
    before = (tmp_path / "model.safetensors").read_bytes()
    model = load_model(tmp_path, mapped=True)
    tokens = some_tokens(model.config, rows=1, length=8)
    model.logits(model(tokens, torch.ones_like(tokens)).states).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= parameter.grad
    assert not torch.equal(model.embedding.weight, load_model(tmp_path).embedding.weight)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_file_that_is_replaced_leaves_the_model_as_it_was(tmp_path):
    save_model(tiny_model(CONFIGS["qwen3"]), tmp_path / "a", **IDS)
    save_model(tiny_model(CONFIGS["qwen3"], seed=5), tmp_path / "b", **IDS)
    model, kept = load_model(tmp_path / "a", mapped=True), load_model(tmp_path / "a")
    os.replace(tmp_path / "b" / "model.safetensors", tmp_path / "a" / "model.safetensors")
    assert torch.equal(model.embedding.weight, kept.embedding.weight)


def test_what_is_only_copied_from_is_lent(tmp_path, lent):
    """`eval`, `chat` and `export` compute on copies of their own, so that where these lie changes no number."""
    save_model(tiny_model(CONFIGS["qwen3"]), tmp_path, **IDS)
    copied = load_model(tmp_path)
    assert not lent
    model = load_source(tmp_path)
    assert "embedding.weight" in lent
    copies = [inference_copy(one, torch.float32) for one in (copied, model)]
    ours, theirs = ({p.data_ptr() for p in one.parameters()} for one in (model, copies[1]))
    assert not ours & theirs
    tokens = some_tokens(model.config, rows=2, length=9)
    a, b = (one(tokens, torch.ones_like(tokens)).states for one in copies)
    assert torch.equal(a, b)


def test_another_dtype_is_copied(tmp_path, lent):
    save_model(tiny_model(CONFIGS["qwen3"]), tmp_path, **IDS, dtype=torch.bfloat16)
    model = load_model(tmp_path, mapped=True)
    assert not lent
    assert model.embedding.weight.dtype == torch.float32
    assert load_model(tmp_path, torch.bfloat16, mapped=True).embedding.weight.dtype == torch.bfloat16
    assert lent


def test_bytes_at_odd_places_are_copied(tmp_path, lent):
    """A tensor of one byte before the others shifts what a foreign writer left unaligned."""
    save_model(tiny_model(CONFIGS["llama"]), tmp_path, **IDS)
    path = tmp_path / "model.safetensors"
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors, metadata)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length] + b" "
    path.write_bytes((length + 1).to_bytes(8, "little") + header + data[8 + length :])
    model = load_model(tmp_path, mapped=True)
    assert not lent
    assert torch.equal(model.embedding.weight, tiny_model(CONFIGS["llama"]).embedding.weight)
