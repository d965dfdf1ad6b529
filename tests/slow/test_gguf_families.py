"""Every family that GGUF holds, at the shapes of `tests/model/published.py`: llama.cpp computes our logits in fp32.

Or the file is refused with the reason, never written to be computed otherwise.
"""

from pathlib import Path

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.model.decoder import Decoder
from clearseek.model.families import config_from_published
from clearseek.model.gguf.architectures import ARCHITECTURES
from clearseek.model.gguf.read import load_gguf
from clearseek.model.gguf.write import write_gguf
from tests.model.gguf_models import OF_FAMILIES, family_config, vocabulary_of
from tests.model.published import YARN
from tests.model.tiny import tiny_model
from tests.slow.gguf_logits import LENGTH, llama_cpp_logits, ours

published = pytest.importorskip("tests.model.published", reason="published shapes are not in this tree")
pytest.importorskip("gguf", reason="the gguf library is absent")

SHAPES = [row for row in published.SHAPES if published.config_json(*row)["model_type"] in ARCHITECTURES]
REFUSED = {
    ("DeepseekV2ForCausalLM", 1): "topk_method",
    ("DeepseekV2ForCausalLM", 2): "mscale",
    ("DeepseekV3ForCausalLM", 1): "has no biases",
    ("DeepseekV3ForCausalLM", 2): "mscale",
    ("DeepseekV32ForCausalLM", 0): "index_head_dim",
    ("DeepseekV32ForCausalLM", 1): "index_head_dim",
    ("DeepseekV32ForCausalLM", 2): "index_head_dim",
    ("Qwen2MoeForCausalLM", 1): "norm_topk_prob",
    ("Qwen2MoeForCausalLM", 2): "has no name in GGUF",
    ("Qwen3ForCausalLM", 1): "has no biases",
    ("Qwen3MoeForCausalLM", 1): "norm_topk_prob",
    ("Qwen3MoeForCausalLM", 2): "norm_topk_prob",
    ("Ernie4_5ForCausalLM", 1): "has no biases",
    ("Ernie4_5_MoeForCausalLM", 2): "moe_layer_interval",
    ("HunYuanDenseV1ForCausalLM", 1): "has no biases",
    ("MiMoV2FlashForCausalLM", 1): "attention_bias = True",
    ("PanguEmbeddedForCausalLM", 1): "bias = False",
    ("GptOssForCausalLM", 1): "attention_bias = False",
    ("GptOssForCausalLM", 2): "swiglu_limit",
}
# Llama 3's stretch is read back with Meta's own numbers only, which a small context is not
WRITTEN_ONLY = {("LlamaForCausalLM", 2)}


def written(row, path):
    config = config_from_published(published.config_json(*row), Path("config.json"))
    model = tiny_model(config)
    vocabulary = vocabulary_of(config.vocab_size)
    return model, write_gguf(model, path, dtype="f32", name="tiny", vocabulary=vocabulary)


@pytest.mark.parametrize("row", SHAPES, ids=lambda row: f"{row[0]}-{row[1]}")
def test_llama_cpp_computes_our_logits_or_the_file_is_refused(row, tmp_path):
    path = tmp_path / "m.gguf"
    if row in REFUSED:
        with pytest.raises(InputError, match=REFUSED[row]):
            written(row, path)
        return
    model, notes = written(row, path)
    if row not in WRITTEN_ONLY:
        state = model.state_dict()
        assert all(torch.equal(tensor, state[name]) for name, tensor in load_gguf(path).state_dict().items())
    if any("without a query latent" in note for note in notes):
        pytest.skip("llama.cpp reads it in 26 or 27 layers only; see below")
    model = as_llama_cpp_has_it(model, notes)
    is_cut = any("no sliding window" in note for note in notes)
    length = model.config.sliding_window if is_cut else LENGTH
    theirs = llama_cpp_logits(path, model)[:length]
    assert (theirs - ours(model)[:length]).abs().max() < 1e-4


def as_llama_cpp_has_it(model, notes):
    """The model with what the notes say of it."""
    config, changes = model.config, {}
    for note in notes:
        if "rounds the bounds of YaRN's ramp" in note:
            changes["rope_scaling"] = config.rope_scaling.model_copy(update={"truncate": True})
        if "normalises latents with rms_norm_eps" in note:
            changes["latent_norm_eps"] = config.rms_norm_eps
    changed = Decoder(config.model_copy(update=changes))
    changed.load_state_dict(model.state_dict())
    return changed


@pytest.mark.parametrize("name", OF_FAMILIES)
def test_llama_cpp_computes_our_logits_of_families_whose_layers_differ(name, tmp_path):
    model = tiny_model(OF_FAMILIES[name])
    vocabulary = vocabulary_of(model.config.vocab_size)
    notes = write_gguf(model, tmp_path / "m.gguf", dtype="f32", name="tiny", vocabulary=vocabulary)
    theirs = llama_cpp_logits(tmp_path / "m.gguf", model)
    error = (theirs - ours(as_llama_cpp_has_it(model, notes))).abs().max()
    print(f"{name}: largest difference {error:.1g} of logits up to {theirs.abs().max():.2g}")
    assert error < 1e-4
    if notes:
        assert ["bounds of YaRN's ramp" in note for note in notes] == [True]
        assert (theirs - ours(model)).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", ["bf16", "q8_0", "mxfp4"])
def test_llama_cpp_computes_what_we_do_from_gpt_oss_in_fewer_bits(dtype, tmp_path):
    """Every expert is chosen: with fewer, rounding to 8 bits now and then chooses another."""
    wide = {"hidden_size": 256, "intermediate_size": 256, "head_dim": 64, "num_local_experts": 4}
    config = family_config("GptOssForCausalLM", 0, rope_scaling=YARN, num_experts_per_tok=4, **wide)
    model = tiny_model(config, std=0.05)
    vocabulary = vocabulary_of(config.vocab_size)
    assert write_gguf(model, tmp_path / "m.gguf", dtype=dtype, name="tiny", vocabulary=vocabulary) == []
    back = ours(load_gguf(tmp_path / "m.gguf"))
    error = (llama_cpp_logits(tmp_path / "m.gguf", model) - back).abs().max()
    print(f"gpt-oss {dtype}: largest difference {error:.2g} of logits up to {back.abs().max():.2g}")
    assert error < 0.05 * back.abs().max()


def test_llama_cpp_computes_our_logits_of_v2_lites_many_layers(tmp_path):
    many = {"num_hidden_layers": 27, "rms_norm_eps": 1e-6}
    table = published.config_json("DeepseekV2ForCausalLM", 0) | many
    model = tiny_model(config_from_published(table, Path("config.json")), std=0.1)
    vocabulary = vocabulary_of(model.config.vocab_size)
    assert write_gguf(model, tmp_path / "m.gguf", dtype="f32", name="tiny", vocabulary=vocabulary) == []
    assert (llama_cpp_logits(tmp_path / "m.gguf", model) - ours(model)).abs().max() < 1e-4
