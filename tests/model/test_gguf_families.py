"""GGUF files of families whose layers differ: what llama.cpp's loader asks for is there, and comes back the same."""

import contextlib
import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.model.checkpoint import load_model, save_model
from clearseek.model.families import config_to_published
from clearseek.model.gguf import read
from clearseek.model.gguf.header import read_header
from clearseek.model.gguf.metadata import config_keys
from clearseek.model.gguf.read import load_gguf
from clearseek.model.gguf.write import write_gguf
from tests.model.gguf_models import OF_FAMILIES, VALUES, WHOLE_BLOCKS, family_config, vocabulary_of
from tests.model.mxfp4 import quantise
from tests.model.tiny import tiny_model

pytest.importorskip("gguf", reason="the gguf library is absent")

LATENT_NAMES = {
    "attn_norm.weight",
    "attn_q_a.weight",
    "attn_q_a_norm.weight",
    "attn_q_b.weight",
    "attn_kv_a_mqa.weight",
    "attn_kv_a_norm.weight",
    "attn_k_b.weight",
    "attn_v_b.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate_inp.weight",
    "ffn_down_exps.weight",
    "ffn_gate_shexp.weight",
    "ffn_up_shexp.weight",
    "ffn_down_shexp.weight",
}
GROUPED_NAMES = {
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_gate_inp.weight",
    "ffn_gate_exps.weight",
    "ffn_up_exps.weight",
    "ffn_down_exps.weight",
}
# of layer 1, as llama.cpp's src/models/*.cpp ask for them
NAMES = {
    "mistral4": LATENT_NAMES | {"ffn_gate_up_exps.weight"},
    "deepseek32": LATENT_NAMES
    | {
        "exp_probs_b.bias",
        "ffn_gate_exps.weight",
        "ffn_up_exps.weight",
        "indexer.k_norm.weight",
        "indexer.k_norm.bias",
        "indexer.proj.weight",
        "indexer.attn_k.weight",
        "indexer.attn_q_b.weight",
    },
    "hy_v3": GROUPED_NAMES
    | {
        "attn_q_norm.weight",
        "attn_k_norm.weight",
        "ffn_norm.weight",
        "exp_probs_b",
        "ffn_gate_shexp.weight",
        "ffn_up_shexp.weight",
        "ffn_down_shexp.weight",
    },
    "mimo2": GROUPED_NAMES | {"attn_sinks.weight", "ffn_norm.weight", "exp_probs_b.bias"},
    "gpt-oss": GROUPED_NAMES
    | {
        "attn_q.bias",
        "attn_k.bias",
        "attn_v.bias",
        "attn_output.bias",
        "attn_sinks.weight",
        "post_attention_norm.weight",
        "ffn_gate_inp.bias",
        "ffn_gate_exps.bias",
        "ffn_up_exps.bias",
        "ffn_down_exps.bias",
    },
}


def write(model, path, dtype="f32"):
    return write_gguf(
        model, path, dtype=dtype, name="tiny", vocabulary=vocabulary_of(model.config.vocab_size)
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files of every family in fp32, by name; and what was told of each."""
    folder = tmp_path_factory.mktemp("families")
    found = {}
    for number, (name, config) in enumerate(OF_FAMILIES.items()):
        path = folder / f"{number}.gguf"
        found[name] = path, write(tiny_model(config), path)
    return found


@pytest.mark.parametrize("name", OF_FAMILIES)
def test_fp32_comes_back_to_the_last_bit_and_so_does_the_config(name, files):
    model, back = tiny_model(OF_FAMILIES[name]), load_gguf(files[name][0])
    as_one_group = {"num_expert_groups": 1, "num_limited_groups": 1}
    config = model.config
    if config.num_expert_groups == config.num_limited_groups:
        config = config.model_copy(update=as_one_group)
    assert back.config == config
    state = model.state_dict()
    assert back.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in back.state_dict().items())


@pytest.mark.parametrize("name", NAMES)
def test_a_layer_is_what_llama_cpps_loader_asks_for(name, files):
    file = read_header(files[name][0])
    found = {tensor.removeprefix("blk.1.") for tensor in file.tensors if tensor.startswith("blk.1.")}
    assert found == NAMES[name]
    assert file.architecture == name


def test_experts_lie_apart_and_out_before_in(files):
    """ggml's order is columns first: {in, out, experts}."""
    config = OF_FAMILIES["gpt-oss"]
    shapes = {name: t.shape for name, t in read_header(files["gpt-oss"][0]).tensors.items()}
    experts, hidden, inner = config.num_routed_experts, config.hidden_size, config.moe_intermediate_size
    assert (
        shapes["blk.0.ffn_gate_exps.weight"] == shapes["blk.0.ffn_up_exps.weight"] == (experts, inner, hidden)
    )
    assert shapes["blk.0.ffn_down_exps.weight"] == (experts, hidden, inner)
    assert shapes["blk.0.ffn_up_exps.bias"] == (experts, inner)
    assert shapes["blk.0.attn_sinks.weight"] == (config.num_heads,)


def test_what_layers_differ_in_is_said(files):
    file = read_header(files["mimo2"][0])
    keys = {key.removeprefix("mimo2."): value for key, value in file.metadata.items()}
    assert keys["attention.head_count_kv"] == [2, 4, 2]
    assert keys["attention.sliding_window_pattern"] == [0, 1, 0]
    assert (keys["rope.freq_base"], keys["rope.freq_base_swa"]) == (500.0, 100.0)
    assert (keys["attention.key_length"], keys["attention.value_length"]) == (24, 16)
    assert keys["rope.dimension_count"] == 8
    assert keys["context_length"] == 64  # not cut to the window, which llama.cpp has here
    keys = read_header(files["mistral4 growing"][0]).metadata
    assert keys["mistral4.attention.temperature_scale"] == 0.1
    assert keys["mistral4.attention.temperature_length"] == 16
    keys = read_header(files["hy_v3"][0]).metadata
    assert (keys["hy_v3.expert_gating_func"], keys["hy_v3.expert_weights_scale"]) == (2, 2.826)


def test_a_ramp_that_llama_cpp_rounds_is_told(files):
    assert "rounds the bounds of YaRN's ramp" in files["gpt-oss with a ramp as published"][1][0]
    assert all(not notes for name, (_, notes) in files.items() if "as published" not in name)


def changed(monkeypatch, path, metadata, tensors=None):
    """Let reading find other metadata than the file's; None takes a key away."""
    header = read_header(path)
    merged = {key: value for key, value in {**header.metadata, **metadata}.items() if value is not None}
    found = dataclasses.replace(header, metadata=merged, tensors={**header.tensors, **(tensors or {})})
    monkeypatch.setattr(read, "read_header", lambda path: found)
    return load_gguf(path)


def test_a_file_of_multi_token_layers_alone_is_refused(monkeypatch, files):
    with pytest.raises(InputError, match="no layers are left"):
        changed(monkeypatch, files["mimo2"][0], {"mimo2.nextn_predict_layers": 3})


def test_a_file_of_others_that_says_no_ramp_and_no_pattern_is_gpt_oss_as_published(monkeypatch, files):
    absent = {
        "gpt-oss.rope.scaling.yarn_truncate": None,
        "gpt-oss.attention.sliding_window_pattern": None,
    }
    config = changed(monkeypatch, files["gpt-oss with a ramp as published"][0], absent).config
    assert config == OF_FAMILIES["gpt-oss with a ramp as published"]


@pytest.mark.parametrize(
    ("name", "arch"), [("deepseek32", "deepseek32"), ("mimo2", "mimo2"), ("hy_v3", "hy_v3")]
)
def test_multi_token_layers_that_others_write_are_left_where_they_are(name, arch, monkeypatch, files):
    config = OF_FAMILIES[name]
    header = read_header(files[name][0])
    more = {f"{arch}.block_count": 4, f"{arch}.nextn_predict_layers": 1}
    for key in ("attention.head_count_kv", "attention.sliding_window_pattern"):
        if isinstance(values := header.metadata.get(f"{arch}.{key}"), list):
            more[f"{arch}.{key}"] = [*values, 1]
    extra = header.tensors["output_norm.weight"]
    tensors = {"blk.3.nextn.enorm.weight": dataclasses.replace(extra, name="blk.3.nextn.enorm.weight")}
    assert changed(monkeypatch, files[name][0], more, tensors).config.num_layers == config.num_layers
    tensors = {"blk.4.attn_norm.weight": dataclasses.replace(extra, name="blk.4.attn_norm.weight")}
    with pytest.raises(InputError, match=r"1 tensors left over \(blk.4.attn_norm.weight\)"):
        changed(monkeypatch, files[name][0], more, tensors)


@pytest.mark.parametrize(
    ("name", "metadata", "message"),
    [
        (
            "mimo2",
            {"mimo2.attention.sliding_window_pattern": None},
            "has to be a list with a number for each",
        ),
        (
            "mimo2",
            {"mimo2.attention.head_count_kv": [2, 3, 2]},
            "only one number for layers that see everything",
        ),
        ("mimo2", {"mimo2.rope.dimension_count": 25}, r"rope.dimension_count \(25\) must be between 1 and"),
        ("mimo2", {"mimo2.rope.scaling.type": "yarn"}, "rope.scaling.type of mimo2 has to be none"),
        ("hy_v3", {"hy_v3.nextn_predict_layers": 4}, "nextn_predict_layers = 4 has to be a number up to"),
        (
            "mistral4 growing",
            {"mistral4.attention.temperature_length": 8},
            r"temperature_length \(8\) must be",
        ),
        (
            "mistral4",
            {"mistral4.expert_gating_func": 2},
            "expert_gating_func = 2 with expert_weights_norm = True",
        ),
        (
            "hy_v3",
            {"hy_v3.expert_weights_norm": False},
            "expert_weights_norm = False is not supported; a model of",
        ),
        ("mistral4", {"mistral4.attention.temperature_scale": 0.1}, "with rope.scaling.type yarn only"),
    ],
)
def test_metadata_that_is_not_supported_is_named(name, metadata, message, monkeypatch, files):
    with pytest.raises(InputError, match=message):
        changed(monkeypatch, files[name][0], metadata)


def test_another_floor_of_latents_norms_is_told(tmp_path):
    config = OF_FAMILIES["mistral4"].model_copy(update={"rms_norm_eps": 1e-5})
    notes = write(tiny_model(config), tmp_path / "m.gguf")
    assert len(notes) == 1
    assert "normalises latents with rms_norm_eps (1e-05), where this model has 1e-06" in notes[0]


V32, OSS = "DeepseekV32ForCausalLM", "GptOssForCausalLM"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (family_config(V32, 0), r"index_head_dim = 10 can't be written as GGUF: llama.cpp wants a power of two"),
        (family_config(V32, 0, index_head_dim=96), r"index_head_dim = 96"),
        (
            family_config(V32, 0, index_head_dim=64, mlp_layer_types=["dense", "sparse", "dense"]),
            "mlp_layer_types can't be written as GGUF",
        ),
        (family_config("Mistral4ForCausalLM", 0, n_shared_experts=0), "a model without shared experts"),
        (family_config("Mistral4ForCausalLM", 0, rope_interleave=False), "rope_interleave = False"),
        (family_config("HYV3ForCausalLM", 0, num_shared_experts=0), "a model without shared experts"),
        (family_config("MiMoV2FlashForCausalLM", 0, routed_scaling_factor=2.5), "routed_scaling_factor = 2.5"),
        (family_config("MiMoV2FlashForCausalLM", 0, tie_word_embeddings=True), "tie_word_embeddings = True"),
        (family_config(OSS, 0, swiglu_limit=5.0), r"swiglu_limit = 5.0 can't .* takes 7.0 for granted"),
        (family_config(OSS, 0, attention_bias=False), "attention_bias = False"),
        (
            family_config("MistralForCausalLM", 2, rope_scaling={
                "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16,
                "llama_4_scaling_beta": 0.1,
            }),
            "llama_4_scaling_beta = 0.1 can't be written as GGUF",
        ),
    ],
)  # fmt: skip
def test_what_llama_cpp_would_compute_otherwise_is_refused(config, message):
    with pytest.raises(InputError, match=message):
        config_keys(config_to_published(config))


@pytest.mark.parametrize("family", ["PanguUltraMoEForCausalLM", "MiMoForCausalLM"])
def test_a_family_without_an_architecture_is_refused(family, tmp_path):
    with pytest.raises(
        InputError, match=r"can't be written as GGUF: llama.cpp has no architecture for it; known"
    ):
        write(tiny_model(family_config(family, 0)), tmp_path / "m.gguf")
    assert list(tmp_path.iterdir()) == []


def test_experts_published_in_mxfp4_are_written_and_read_without_loss(tmp_path):
    published = family_config(OSS, 0, hidden_size=64, intermediate_size=32)
    directory, path = tmp_path / "published", tmp_path / "m.gguf"
    save_model(tiny_model(published), directory, bos_id=None, eos_id=None, pad_id=None, dtype=torch.bfloat16)
    quantise(directory)
    model = load_model(directory)
    assert len(write(model, path, "mxfp4")) == 1  # of the ramp alone
    types = {name: tensor.type_name for name, tensor in read_header(path).tensors.items()}
    assert {kind for name, kind in types.items() if name.endswith("_exps.weight")} == {"MXFP4"}
    assert set(types.values()) == {"MXFP4", "BF16", "F32"}
    state = model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in load_gguf(path).state_dict().items())


def test_mxfp4_is_refused_where_there_are_no_experts(tmp_path):
    with pytest.raises(InputError, match="--dtype mxfp4 is for experts, and this model has none"):
        write(tiny_model(WHOLE_BLOCKS["llama"]), tmp_path / "m.gguf", "mxfp4")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_metadata_makes_a_model_or_a_named_error(files, data):
    name = data.draw(st.sampled_from(sorted(OF_FAMILIES)))
    known = read_header(files[name][0])
    keys = sorted(key for key in known.metadata if "tokenizer" not in key)
    more = ["nextn_predict_layers", "attention.temperature_scale", "attention.temperature_length"]
    keys += [f"{known.architecture}.{key}" for key in (*more, "rope.scaling.type", "rope.scaling.factor")]
    metadata = {
        data.draw(st.sampled_from(keys)): data.draw(st.sampled_from(VALUES))
        for _ in range(data.draw(st.integers(1, 3)))
    }
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(InputError):
        changed(patch, files[name][0], metadata)
