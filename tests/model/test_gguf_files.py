"""GGUF files written and read back: the same config, the same weights, named errors for what does not fit."""

import contextlib
import dataclasses
import errno

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError, RunError
from clearseek.config.model import ModelConfig
from clearseek.model.families import config_to_published
from clearseek.model.gguf import metadata, read, rope
from clearseek.model.gguf import write as writing
from clearseek.model.gguf.header import read_header
from clearseek.model.gguf.read import load_gguf
from clearseek.model.gguf.storage import DTYPES, stored_type
from clearseek.model.gguf.write import write_gguf
from tests.model.gguf_models import GROUPED, STORED, VALUES, WHOLE_BLOCKS, vocabulary_of
from tests.model.tiny import CONFIGS, tiny_model

gguf = pytest.importorskip("gguf", reason="the gguf library is absent")

# llama.cpp takes both mscales for equal; see test_a_stretch_that_llama_cpp_computes_otherwise_is_refused
WRITABLE = [name for name in CONFIGS if name != "deepseek_v3 yarn"]


def write(model, path, dtype="f32"):
    vocabulary = vocabulary_of(model.config.vocab_size)
    return write_gguf(model, path, dtype=dtype, name="tiny", vocabulary=vocabulary, licence="mit")


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A file of a llama in fp32."""
    path = tmp_path_factory.mktemp("gguf") / "llama.gguf"
    write(tiny_model(CONFIGS["llama"]), path)
    return path


@pytest.mark.parametrize("name", WRITABLE)
def test_fp32_comes_back_to_the_last_bit(name, tmp_path):
    model = tiny_model(CONFIGS[name])
    write(model, tmp_path / "m.gguf")
    back = load_gguf(tmp_path / "m.gguf")
    unread = {"num_mtp_layers", "initializer_range", "num_expert_groups", "num_limited_groups"}
    ours, theirs = (m.config.model_dump(exclude=unread, exclude_defaults=True) for m in (model, back))
    theirs.pop("head_dim", None), theirs.pop("num_key_value_heads", None)
    assert theirs.items() <= {**ours, **_spelled_out(model.config)}.items()
    assert back.config.head_size == model.config.head_size
    state = model.state_dict()
    for tensor_name, tensor in back.state_dict().items():
        assert torch.equal(tensor, state[tensor_name]), tensor_name


def _spelled_out(config):
    """What a file says that a config may leave to its default."""
    return {"rope_scaling": config.rope_scaling and config.rope_scaling.model_dump(exclude_defaults=True)}


@pytest.mark.parametrize(("name", "dtype"), STORED)
def test_weights_come_back_within_the_types_error(name, dtype, tmp_path):
    bounds = {"f32": 0, "f16": 5e-4, "bf16": 4e-3, "q8_0": 8e-3, "q4_0": 0.1, "q4_k": 0.08, "mxfp4": 0.15}
    model = tiny_model(WHOLE_BLOCKS[name], std=0.05)
    notes = write(model, tmp_path / "m.gguf", dtype)
    assert not notes or (dtype == "q4_k" and "attn_k_b" in notes[0])  # its rows are a head's 64
    state = load_gguf(tmp_path / "m.gguf").state_dict()
    for tensor_name, tensor in model.state_dict().items():
        error = (state[tensor_name] - tensor).pow(2).mean().sqrt() / tensor.pow(2).mean().sqrt()
        assert error <= (bounds[dtype] if tensor.ndim > 1 else 0), tensor_name


def test_the_library_reads_what_we_write(llama):
    """The gguf library's own reader finds the same tensors in the same places."""
    reader, ours = gguf.GGUFReader(llama), read_header(llama)
    assert {t.name: (t.data_offset, t.n_bytes) for t in reader.tensors} == {
        t.name: (t.offset, t.num_bytes) for t in ours.tensors.values()
    }
    assert reader.get_field("general.license").contents() == "mit"
    found = {name: field.contents() for name, field in reader.fields.items() if "GGUF" not in name}
    for name in ("llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"):
        assert found.pop(name) == pytest.approx(ours.metadata.pop(name), rel=1e-7)
    assert found == ours.metadata


@pytest.mark.parametrize("dtype", ["q4_0", "q4_k"])
def test_only_matrices_are_narrowed_and_what_gives_the_logits_least(dtype, tmp_path):
    for name, head in {"llama": "output.weight", "qwen3": "token_embd.weight"}.items():
        write(tiny_model(WHOLE_BLOCKS[name]), tmp_path / f"{name}.gguf", dtype)
        types = {n: t.type_name for n, t in read_header(tmp_path / f"{name}.gguf").tensors.items()}
        assert types.pop(head) == "Q8_0"
        assert {n for n, kind in types.items() if kind == "F32"} == {n for n in types if "norm" in n}
        assert set(types.values()) == {"F32", DTYPES[dtype][0]}


def test_routers_stay_fp32(tmp_path):
    write(tiny_model(WHOLE_BLOCKS["deepseek_v3"]), tmp_path / "m.gguf", "q4_k")
    tensors = read_header(tmp_path / "m.gguf").tensors
    assert tensors["blk.1.ffn_gate_inp.weight"].type_name == "F32"
    assert tensors["blk.1.exp_probs_b.bias"].type_name == "F32"
    assert tensors["blk.1.ffn_gate_exps.weight"].shape == (4, 256, 256)


@pytest.mark.parametrize(
    ("wanted", "row", "chosen"),
    [
        ("Q4_K", 256, "Q4_K"),
        ("Q4_K", 96, "Q8_0"),
        ("Q4_K", 48, "F16"),
        ("Q4_0", 48, "F16"),
        ("BF16", 7, "BF16"),
    ],
)
def test_rows_that_are_no_whole_blocks_take_a_wider_type(wanted, row, chosen):
    assert stored_type("blk.0.ffn_up.weight", (4, row), wanted, gives_logits=False) == chosen


def test_wider_types_and_what_is_left_out_are_told(tmp_path):
    notes = write(tiny_model(CONFIGS["deepseek_v3 mtp"]), tmp_path / "m.gguf", "q8_0")
    assert "tensors are F16, as their rows are not whole blocks of Q8_0" in notes[0]
    assert notes[1] == "multi-token prediction is left out: llama.cpp does not read it"


@pytest.mark.parametrize(("mscale", "all_dim"), [(0.7, 1.3), (1.0, 0.0)])
def test_a_stretch_that_llama_cpp_computes_otherwise_is_refused(mscale, all_dim, tmp_path):
    yarn = CONFIGS["deepseek_v3 yarn"].rope_scaling
    changed = yarn.model_copy(update={"mscale": mscale, "mscale_all_dim": all_dim})
    config = CONFIGS["deepseek_v3 yarn"].model_copy(update={"rope_scaling": changed})
    with pytest.raises(InputError, match=r"mscale \(.*\) and mscale_all_dim \(.*\) must be equal"):
        write(tiny_model(config), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_equal_mscales_come_back(tmp_path):
    yarn = CONFIGS["deepseek_v3 yarn"].rope_scaling.model_copy(update={"mscale": 0.7, "mscale_all_dim": 0.7})
    config = CONFIGS["deepseek_v3 yarn"].model_copy(update={"rope_scaling": yarn})
    write(tiny_model(config), tmp_path / "m.gguf")
    assert load_gguf(tmp_path / "m.gguf").config.rope_scaling == yarn


def test_a_ramp_that_llama_cpp_would_round_is_refused():
    published = config_to_published(CONFIGS["qwen3 yarn"])
    published["rope_scaling"] |= {"truncate": False}
    with pytest.raises(InputError, match=r"truncate = False can't be written as GGUF"):
        metadata.config_keys(published)


def test_a_sliding_window_cuts_the_context_within_which_both_are_the_same():
    published = {**config_to_published(CONFIGS["llama"]), "model_type": "mistral", "sliding_window": 512}
    assert metadata.config_keys(published)["context_length"] == 512
    published["model_type"], published["use_sliding_window"] = "qwen2", False
    assert metadata.config_keys(published)["context_length"] == 4096


def test_what_llama_cpp_takes_for_granted_has_to_be_so():
    published = {**config_to_published(CONFIGS["qwen3"]), "model_type": "qwen3_moe", "norm_topk_prob": False}
    with pytest.raises(
        InputError, match=r"norm_topk_prob = False can't be written as GGUF: llama.cpp's qwen3moe"
    ):
        metadata.config_keys(published)
    published |= {
        "norm_topk_prob": True,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
    }
    assert metadata.config_keys(published)["expert_used_count"] == 2


def llama3(**changes):
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling |= {"original_max_position_embeddings": 8192, **changes}
    published = config_to_published(ModelConfig(family="llama", **GROUPED, rope_theta=500_000.0))
    return {**published, "rope_scaling": scaling}


def test_llama_3s_divisors_are_those_of_transformers():
    """Published wave lengths of Llama 3.1: short ones as they are, long ones eight times, between them by part."""
    divisors = rope.rope_frequencies(llama3())
    assert divisors.shape == (32,)
    assert (divisors[:14] == 1).all()
    assert np.allclose(divisors[-10:], 8)
    assert (np.diff(divisors) >= 0).all()


def test_a_family_that_llama_cpp_lacks_is_refused():
    with pytest.raises(
        InputError, match=r"family mimo .*: llama.cpp has no architecture for it; known ones: .*llama"
    ):
        metadata.config_keys({"model_type": "mimo"})


def test_weights_beyond_float16_are_refused_and_nothing_is_left(tmp_path):
    model = tiny_model(CONFIGS["llama"])
    model.embedding.weight.data[3, 3] = 70_000.0
    with pytest.raises(
        InputError, match=r"token_embd.weight has weights beyond float16's 65504; use --dtype bf16"
    ):
        write(model, tmp_path / "m.gguf", "f16")
    model.embedding.weight.data[3, 3] = float("nan")
    with pytest.raises(InputError, match=r"token_embd.weight holds nan or inf"):
        write(model, tmp_path / "m.gguf", "q8_0")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "_write_tensors", full)
    with pytest.raises(RunError, match=r"m.gguf can't be written \(No space left on device\)"):
        write(tiny_model(CONFIGS["llama"]), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def changed(monkeypatch, path, **fields):
    """Let reading find another header than the file's."""
    monkeypatch.setattr(read, "read_header", lambda path: dataclasses.replace(read_header(path), **fields))
    return load_gguf(path)


def test_tensors_that_do_not_fit_the_metadata_are_named(monkeypatch, llama):
    tensors = read_header(llama).tensors
    fewer = {name: tensor for name, tensor in tensors.items() if "ffn_up" not in name}
    with pytest.raises(InputError, match=r"3 tensors missing \(blk.0.ffn_up.weight, blk.1"):
        changed(monkeypatch, llama, tensors=fewer)
    more = {**tensors, "blk.0.strange.weight": tensors["output.weight"]}
    with pytest.raises(InputError, match=r"1 tensors left over \(blk.0.strange.weight\)"):
        changed(monkeypatch, llama, tensors=more)
    other = {**tensors, "output.weight": dataclasses.replace(tensors["output.weight"], shape=(32, 97))}
    with pytest.raises(
        InputError, match=r"output.weight is \[32, 97\], but its metadata makes it \[97, 32\]"
    ):
        changed(monkeypatch, llama, tensors=other)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"general.architecture": "bert"}, "architecture 'bert' is not supported; known ones: deepseek2"),
        ({"llama.block_count": None}, "num_hidden_layers missing"),
        ({"llama.rope.scaling.type": "longrope"}, "rope.scaling.type 'longrope' is not supported"),
        ({"llama.attention.head_count_kv": 3}, "must be divisible by num_key_value_heads"),
        ({"llama.embedding_length": -4}, "hidden_size"),
        ({"llama.embedding_length": "many"}, "hidden_size"),
    ],
)
def test_metadata_that_makes_no_model_is_named(monkeypatch, llama, keys, message):
    found = {**read_header(llama).metadata, **keys}
    found = {key: value for key, value in found.items() if value is not None}
    with pytest.raises(InputError, match=message):
        changed(monkeypatch, llama, metadata=found)


def test_a_part_of_a_file_is_refused(monkeypatch, llama):
    metadata = {**read_header(llama).metadata, "split.count": 3, "split.no": 0}
    with pytest.raises(InputError, match=r"is one of 3 parts; join them with llama.cpp's llama-gguf-split"):
        changed(monkeypatch, llama, metadata=metadata)


def test_early_files_of_latent_attention_are_refused(monkeypatch, tmp_path):
    write(tiny_model(CONFIGS["deepseek_v3"]), tmp_path / "m.gguf")
    found = dict(read_header(tmp_path / "m.gguf").metadata)
    del found["deepseek2.attention.key_length_mla"]
    with pytest.raises(InputError, match="before latent attention was absorbed are not supported"):
        changed(monkeypatch, tmp_path / "m.gguf", metadata=found)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_metadata_makes_a_model_or_a_named_error(llama, data):
    """Keys changed to anything: a model that fits the tensors, or an InputError that names the file."""
    metadata = dict(read_header(llama).metadata)
    keys = sorted(key for key in metadata if "tokenizer" not in key)
    more = ["type", "factor", "original_context_length", "yarn_log_multiplier", "attn_factor"]
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(st.sampled_from([*keys, *(f"llama.rope.scaling.{name}" for name in more)]))
        metadata[key] = data.draw(st.sampled_from(VALUES))
    metadata = {key: value for key, value in metadata.items() if value is not None}
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(InputError):
        changed(patch, llama, metadata=metadata)
