"""Our GGUF files opened by others: llama.cpp (llama-cpp-python) and transformers compute the logits that we do."""

import math

import numpy as np
import pytest
import torch

from clearseek.config.model import ModelConfig
from clearseek.model.gguf.read import load_gguf
from clearseek.model.gguf.vocabulary import vocabulary_keys
from clearseek.model.gguf.write import write_gguf
from tests.model.gguf_models import GROUPED, STORED, WHOLE_BLOCKS, vocabulary_of
from tests.model.test_gguf_vocabulary import TEXTS, like_sentencepiece, tokenizer_like
from tests.model.tiny import CONFIGS, some_tokens, tiny_model
from tests.slow.gguf_logits import LENGTH, llama_cpp_logits, ours

pytest.importorskip("gguf", reason="the gguf library is absent")

WITHOUT_LLAMA_CPP = {
    "deepseek_v3 yarn": "refused: llama.cpp takes both mscales for equal",
    "deepseek_v3 without query latent": "llama.cpp reads it with 26, 27 or 48 layers only",
}
# transformers takes every head of Qwen3 to be 128 wide, and reads no latent attention and no YaRN
TRANSFORMERS = {
    "llama": CONFIGS["llama"],
    "llama without groups": CONFIGS["llama without groups"],
    "qwen3": CONFIGS["qwen3"].model_copy(update={"head_dim": 128}),
}


def write(model, path, dtype="f32"):
    write_gguf(model, path, dtype=dtype, name="tiny", vocabulary=vocabulary_of(model.config.vocab_size))


@pytest.mark.parametrize("name", CONFIGS)
def test_llama_cpp_computes_our_logits_in_fp32(name, tmp_path):
    if name in WITHOUT_LLAMA_CPP:
        pytest.skip(WITHOUT_LLAMA_CPP[name])
    model = tiny_model(CONFIGS[name])
    write(model, tmp_path / "m.gguf")
    assert (llama_cpp_logits(tmp_path / "m.gguf", model) - ours(model)).abs().max() < 1e-4


@pytest.mark.parametrize(("name", "dtype"), STORED)
def test_llama_cpp_computes_what_we_do_from_the_same_stored_weights(name, dtype, tmp_path):
    """It rounds what meets quantised weights to 8 bits (16-bit ones: to 16 bits), we don't: hence the bounds."""
    model = tiny_model(WHOLE_BLOCKS[name], std=0.05)
    write(model, tmp_path / "m.gguf", dtype)
    back = ours(load_gguf(tmp_path / "m.gguf"))
    error = (llama_cpp_logits(tmp_path / "m.gguf", model) - back).abs().max()
    print(f"{name} {dtype}: largest difference {error:.2g} of logits up to {back.abs().max():.2g}")
    bound = {"f32": 1e-4, "f16": 0.01, "bf16": 0.05}.get(dtype, 0.25)
    assert error < bound
    assert bound < back.abs().max() / 10


def test_llama_3s_stretch_turns_as_llama_cpp_turns(tmp_path, monkeypatch):
    """Divisors written by hand into a file of ours; the reference turns by the divided frequencies."""
    from clearseek.model.gguf import write as writing

    divisors = np.linspace(1, 8, 32, dtype=np.float32)
    monkeypatch.setattr(writing, "rope_frequencies", lambda published: divisors)
    model = tiny_model(ModelConfig(family="llama", **GROUPED, rope_theta=100.0), std=0.05)
    write(model, tmp_path / "m.gguf")
    theirs = llama_cpp_logits(tmp_path / "m.gguf", model)
    assert (theirs - ours(model)).abs().max() > 1e-2
    frequencies = 100.0 ** (-torch.arange(0, 64, 2) / 64) / torch.from_numpy(divisors)
    angles = torch.outer(torch.arange(LENGTH), frequencies)
    model.rotary = torch.stack((angles.cos(), angles.sin()))
    assert (theirs - ours(model)).abs().max() < 1e-4


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "deepseek-v3", "tekken", "gpt-4o", "gpt-2", "llama"])
def test_llama_cpp_splits_text_as_the_tokenizer_does(name, tmp_path):
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is absent")
    original = like_sentencepiece(tmp_path, True) if name == "llama" else tokenizer_like(name, tmp_path)
    size = original.get_vocab_size()
    model = tiny_model(ModelConfig(family="llama", **{**GROUPED, "vocab_size": size, "num_layers": 1}))
    vocabulary, notes = vocabulary_keys(tmp_path, size)
    assert notes == []
    path = tmp_path / "m.gguf"
    write_gguf(model, path, dtype="f32", name="tiny", vocabulary=vocabulary)
    opened = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    for text in TEXTS:
        theirs = opened.tokenize(text.encode(), add_bos=False, special=True)
        assert theirs == original.encode(text, add_special_tokens=False).ids, text
    opened.close()


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers_computes_our_logits(name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is absent")
    model = tiny_model(TRANSFORMERS[name])
    write(model, tmp_path / "m.gguf")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="m.gguf").eval()
    with torch.no_grad():
        theirs = reference(some_tokens(model.config, 1, LENGTH)).logits[0]
    assert (theirs - ours(model)).abs().max() < 1e-4


def test_the_quantiser_errs_no_more_than_llama_cpps_own(tmp_path):
    """ggml's own Q4_K of the same weights, by its C function."""
    import ctypes
    import os
    from pathlib import Path

    import gguf

    from clearseek.model.gguf.q4_k import quantize_q4_k

    llama_cpp = pytest.importorskip("llama_cpp", reason="llama-cpp-python is absent")
    folder = Path(os.environ.get("LLAMA_CPP_LIB_PATH") or Path(llama_cpp.__file__).parent / "lib")
    library = ctypes.CDLL(str(next(folder.glob("libggml-base.so*"))))
    weights = 0.02 * np.random.default_rng(0).standard_normal((64, 1024), dtype=np.float32)
    theirs = np.zeros((64, 1024 // 256 * 144), np.uint8)
    quantise = library.quantize_q4_K
    quantise.restype = ctypes.c_size_t
    pointers = [ctypes.c_void_p(array.ctypes.data) for array in (weights, theirs)]
    quantise(*pointers, ctypes.c_int64(64), ctypes.c_int64(1024), None)

    def error(raw):
        back = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.Q4_K)
        return math.sqrt(np.mean((back - weights) ** 2))

    assert error(quantize_q4_k(weights)) < 1.02 * error(theirs)
