"""What `clearseek info` tells: counted as torch counts, without loading a weight."""

import json

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.model import inspect
from clearseek.model.checkpoint import save_model
from clearseek.model.families import config_to_published
from clearseek.model.inspect import BYTES_PER_WEIGHT, count_parameters, inspect_model
from clearseek.model.licence import licence_of
from tests.model.gguf_models import WHOLE_BLOCKS, vocabulary_of
from tests.model.tiny import CONFIGS, tiny_model

IDS = {"bos_id": 0, "eos_id": 1, "pad_id": 2}
# the sizes that DeepSeek publishes of R1: 671 billion parameters, 37 of them active, and a layer beyond the last
R1 = {
    **config_to_published(CONFIGS["deepseek_v3"]),
    "hidden_size": 7168, "num_hidden_layers": 61, "num_attention_heads": 128, "num_key_value_heads": 128,
    "vocab_size": 129280, "intermediate_size": 18432, "moe_intermediate_size": 2048, "q_lora_rank": 1536,
    "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    "n_routed_experts": 256, "num_experts_per_tok": 8, "n_shared_experts": 1, "first_k_dense_replace": 3,
    "n_group": 8, "topk_group": 4, "num_nextn_predict_layers": 1, "max_position_embeddings": 163840,
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_is_counted_once(name):
    model = tiny_model(CONFIGS[name])
    total, active, mtp = count_parameters(model.config, model)
    buffers = sum(router.selection_bias.numel() for router in model.routers())
    assert total + mtp == sum(parameter.numel() for parameter in model.parameters()) + buffers
    experts = [p for n, p in model.named_parameters() if p.ndim == 3 and not n.startswith("mtp")]
    idle = 1 - model.config.num_experts_per_token / max(model.config.num_routed_experts, 1)
    assert active == total - round(idle * sum(parameter.numel() for parameter in experts))


def test_r1_from_its_config_alone(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(R1))
    info = inspect_model(tmp_path)
    assert info.parameters == 671_026_419_200
    assert info.active_parameters == 37_552_297_472
    assert info.mtp_parameters == 11_610_068_224
    assert (info.layers, info.heads, info.key_value_heads) == (61, 128, None)
    assert (info.experts, info.active_experts, info.shared_experts) == (256, 8, 1)
    assert (info.context_length, info.vocabulary, info.stored, info.licence) == (163840, 129280, {}, None)
    needs = {need.dtype: need for need in info.memory}
    assert list(needs) == list(BYTES_PER_WEIGHT)
    assert needs["bfloat16"].weights_bytes == 2 * info.parameters
    assert needs["bfloat16"].cache_bytes == 1000 * 61 * (512 + 64) * 2
    assert needs["float32"].cache_bytes == 2 * needs["bfloat16"].cache_bytes


def test_fits_compares_with_this_machine(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(json.dumps(R1))
    monkeypatch.setattr(inspect, "memory_bytes", lambda: 768 * 2**30)
    assert {need.dtype: need.fits for need in inspect_model(tmp_path).memory} == {
        "float32": False, "bfloat16": False, "fp8": True, "q8_0": True, "q4_k": True,
    }  # fmt: skip
    monkeypatch.setattr(inspect, "memory_bytes", lambda: None)
    assert {need.fits for need in inspect_model(tmp_path).memory} == {None}


def test_a_directory_tells_how_its_weights_are_stored(tmp_path):
    model = tiny_model(CONFIGS["qwen3"])
    save_model(model, tmp_path, **IDS, dtype=torch.bfloat16)
    info = inspect_model(tmp_path)
    assert info.stored == {"BF16": 2 * sum(parameter.numel() for parameter in model.parameters())}
    assert info.stored_bytes == info.stored["BF16"]
    assert (info.family, info.architecture, info.key_value_heads) == ("qwen3", "Qwen3ForCausalLM", 2)
    assert info.active_parameters == info.parameters


def test_a_gguf_file_is_described_from_its_header(tmp_path):
    pytest.importorskip("gguf", reason="the gguf library is absent")
    from clearseek.model.gguf.write import write_gguf

    model = tiny_model(WHOLE_BLOCKS["llama"])
    vocabulary = vocabulary_of(model.config.vocab_size)
    write_gguf(model, tmp_path / "m.gguf", dtype="q4_k", name="m", vocabulary=vocabulary, licence="mit")
    info = inspect_model(tmp_path / "m.gguf")
    assert info.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert (info.format, info.family, info.licence) == ("GGUF", "llama", "mit")
    assert set(info.stored) == {"F32", "Q4_K", "Q8_0"}


def test_what_is_no_model_is_named(tmp_path):
    with pytest.raises(InputError, match="no such directory"):
        inspect_model(tmp_path / "none")
    with pytest.raises(InputError, match="is neither a run"):
        inspect_model(tmp_path)


@pytest.mark.parametrize(
    ("files", "licence"),
    [
        ({}, None),
        ({"README.md": "# Title\nlicense: mit"}, None),
        ({"README.md": "---\nlanguage: ko\nlicense: apache-2.0\n---\nText"}, "apache-2.0"),
        ({"README.md": "---\nlicense: 'mit'  # really\n---\n"}, "mit"),
        ({"README.md": "---\nlicense: other\nlicense_name: deepseek\n---\n"}, "deepseek"),
        ({"README.md": "---\nlicense: other\n---\n", "LICENSE": "Ours. Pay."}, "see LICENSE"),
        ({"LICENSE": "   Apache License\n  Version 2.0, January 2004"}, "apache-2.0"),
        ({"LICENCE.txt": "Permission is hereby granted, free\nof charge, to any person"}, "mit"),
    ],
)
def test_the_licence_is_what_the_files_say(tmp_path, files, licence):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert licence_of(tmp_path) == licence
