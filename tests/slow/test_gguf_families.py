"""Every family that GGUF holds, at the shapes of `tests/model/published.py`: llama.cpp computes our logits in fp32.

Or the file is refused with the reason, never written to be computed otherwise.
"""

from pathlib import Path

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.model.families import config_from_published
from clearseek.model.gguf.architectures import ARCHITECTURES
from clearseek.model.gguf.read import load_gguf
from clearseek.model.gguf.write import write_gguf
from tests.model.gguf_models import vocabulary_of
from tests.model.tiny import tiny_model
from tests.slow.test_gguf_peers import LENGTH, llama_cpp_logits, ours

published = pytest.importorskip("tests.model.published", reason="published shapes are not in this tree")
pytest.importorskip("gguf", reason="the gguf library is absent")

SHAPES = [row for row in published.SHAPES if published.config_json(*row)["model_type"] in ARCHITECTURES]
REFUSED = {
    ("DeepseekV2ForCausalLM", 1): "topk_method",
    ("DeepseekV2ForCausalLM", 2): "mscale",
    ("DeepseekV3ForCausalLM", 1): "has no biases",
    ("DeepseekV3ForCausalLM", 2): "mscale",
    ("Qwen2MoeForCausalLM", 1): "norm_topk_prob",
    ("Qwen2MoeForCausalLM", 2): "has no name in GGUF",
    ("Qwen3ForCausalLM", 1): "has no biases",
    ("Qwen3MoeForCausalLM", 1): "norm_topk_prob",
    ("Qwen3MoeForCausalLM", 2): "norm_topk_prob",
    ("Ernie4_5ForCausalLM", 1): "has no biases",
    ("Ernie4_5_MoeForCausalLM", 2): "moe_layer_interval",
    ("HunYuanDenseV1ForCausalLM", 1): "has no biases",
    ("PanguEmbeddedForCausalLM", 1): "bias = False",
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
    length = model.config.sliding_window or LENGTH  # within the window, to which the context is cut
    theirs = llama_cpp_logits(path, model)[:length]
    assert (theirs - ours(model)[:length]).abs().max() < 1e-4


def test_llama_cpp_computes_our_logits_of_v2_lites_many_layers(tmp_path):
    table = published.config_json("DeepseekV2ForCausalLM", 0) | {"num_hidden_layers": 27}
    model = tiny_model(config_from_published(table, Path("config.json")), std=0.1)
    vocabulary = vocabulary_of(model.config.vocab_size)
    assert write_gguf(model, tmp_path / "m.gguf", dtype="f32", name="tiny", vocabulary=vocabulary) == []
    assert (llama_cpp_logits(tmp_path / "m.gguf", model) - ours(model)).abs().max() < 1e-3
