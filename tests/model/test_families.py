"""Published configs, there and back; and every switch that we have not built refused by its name."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from clearseek.config.errors import InputError
from clearseek.config.model import BEGINNINGS, ModelConfig, RopeScaling
from clearseek.model.decoder import Decoder
from clearseek.model.families import config_from_published, config_to_published, pieces_of
from tests.model.published import SHAPES, config_json
from tests.model.tiny import CONFIGS, GROUPED, LATENT

PATH = Path("model/config.json")


def read(published, **changes):
    table = {key: value for key, value in {**published, **changes}.items() if value != "absent"}
    return config_from_published(json.loads(json.dumps(table)), PATH)


# Round trips

sizes = st.integers(1, 6).map(lambda n: 8 * n)
floats = st.floats(1e-6, 1e6, allow_nan=False)
temperatures = st.one_of(st.tuples(st.floats(0.1, 2), st.floats(0.1, 2)), st.just((1.0, 0.0)))
yarns = st.builds(
    lambda factor, original, both: RopeScaling(
        factor=factor, original_max_position_embeddings=original, mscale=both[0], mscale_all_dim=both[1]
    ),
    st.floats(1.5, 64),
    st.integers(1, 8192),
    temperatures,
)


@st.composite
def configs(draw):
    """Any config that a recipe can ask for, with what a published one would leave out at its default."""
    values = {
        "vocab_size": draw(st.integers(1, 300)),
        "hidden_size": draw(sizes) * 8,
        "num_layers": draw(st.integers(1, 4)),
        "num_heads": draw(st.sampled_from([1, 2, 4, 8])),
        "intermediate_size": draw(sizes),
        "max_position_embeddings": draw(st.integers(1, 10**6)),
        "rms_norm_eps": draw(st.sampled_from([1e-6, 1e-5])),
        "rope_theta": draw(st.sampled_from([1e4, 5e5, 123.5])),
        "rope_scaling": draw(st.none() | yarns),
        "tie_word_embeddings": draw(st.booleans()),
    }
    family = draw(st.sampled_from(sorted(BEGINNINGS)))
    if family == "deepseek_v3":
        return ModelConfig(family=family, **values, **draw(latent_values()))
    kv_heads = draw(st.sampled_from([n for n in (1, 2, 4, 8) if values["num_heads"] % n == 0]))
    return ModelConfig(
        family=family, **values, num_key_value_heads=kv_heads, head_dim=2 * draw(st.integers(1, 9))
    )


@st.composite
def latent_values(draw):
    """Sizes of latent attention and, mostly, of experts."""
    values = {
        "q_lora_rank": draw(st.none() | sizes),
        "kv_lora_rank": draw(sizes),
        "qk_nope_head_dim": draw(sizes),
        "qk_rope_head_dim": 2 * draw(st.integers(1, 9)),
        "v_head_dim": draw(sizes),
        "num_mtp_layers": draw(st.integers(0, 2)),
    }
    if draw(st.booleans()):
        return values
    groups = draw(st.integers(1, 3))
    limited = draw(st.integers(1, groups))
    per_group = draw(st.integers(2, 4))
    return values | {
        "num_routed_experts": groups * per_group,
        "num_shared_experts": draw(st.integers(0, 2)),
        "num_experts_per_token": draw(st.integers(1, limited * per_group)),
        "moe_intermediate_size": draw(sizes),
        "num_dense_layers": draw(st.integers(0, 3)),
        "num_expert_groups": groups,
        "num_limited_groups": limited,
        "routed_scaling_factor": draw(st.sampled_from([1.0, 2.5])),
    }


@settings(max_examples=150, deadline=None)
@given(configs())
def test_a_config_comes_back_from_its_published_form(config):
    assert read(config_to_published(config)) == config


@settings(max_examples=40, deadline=None)
@given(configs())
def test_the_pieces_of_a_config_cover_every_parameter_once(config):
    check_pieces(config)


def check_pieces(config):
    """Own pieces tile each tensor of the decoder exactly; names are unique; copies repeat an own piece."""
    with torch.device("meta"):
        state = Decoder(config).state_dict()
    pieces = list(pieces_of(config))
    assert len({piece.published for piece in pieces}) == len(pieces)
    covered = dict.fromkeys(state, 0)
    for piece in pieces:
        part = piece.of(state[piece.ours])
        if piece.kind == "own":
            covered[piece.ours] += part.numel()
        else:
            assert part.shape == state[piece.ours].shape
    assert covered == {name: tensor.numel() for name, tensor in state.items()}


@pytest.mark.parametrize("name", CONFIGS)
def test_the_newer_layout_of_rotary_reads_the_same(name):
    published = config_to_published(CONFIGS[name])
    rope = {"rope_theta": published.pop("rope_theta"), "rope_type": "default"}
    rope |= published.pop("rope_scaling") or {}
    assert config_to_published(read(published, rope_parameters=rope)) == config_to_published(CONFIGS[name])


# What DeepSeek, Qwen and Meta publish

DEEPSEEK_R1 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
    "bos_token_id": 0,
    "eos_token_id": 1,
    "ep_size": 1,
    "first_k_dense_replace": 3,
    "hidden_act": "silu",
    "hidden_size": 7168,
    "initializer_range": 0.02,
    "intermediate_size": 18432,
    "kv_lora_rank": 512,
    "max_position_embeddings": 163840,
    "model_type": "deepseek_v3",
    "moe_intermediate_size": 2048,
    "moe_layer_freq": 1,
    "n_group": 8,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "norm_topk_prob": True,
    "num_attention_heads": 128,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "num_nextn_predict_layers": 1,
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "rms_norm_eps": 1e-06,
    "rope_scaling": {
        "beta_fast": 32,
        "beta_slow": 1,
        "factor": 40,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
        "original_max_position_embeddings": 4096,
        "type": "yarn",
    },
    "rope_theta": 10000,
    "routed_scaling_factor": 2.5,
    "scoring_func": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "topk_method": "noaux_tc",
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "v_head_dim": 128,
    "vocab_size": 129280,
}


def test_deepseek_r1_has_its_published_number_of_parameters():
    """671B in the main model, 11.5B of its own in the multi-token module (DeepSeek-V3's README_WEIGHTS)."""
    config = read(DEEPSEEK_R1)
    with torch.device("meta"):
        model = Decoder(config)
    mtp = sum(parameter.numel() for parameter in model.mtp.parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    assert mtp / 1e9 == pytest.approx(11.5, abs=0.15)
    assert (total - mtp) / 1e9 == pytest.approx(671.0, abs=0.1)
    names = {piece.published for piece in pieces_of(config)}
    assert "model.layers.61.mlp.experts.255.down_proj.weight" in names
    assert "model.layers.61.shared_head.head.weight" in names


def test_early_llama_leaves_grouped_query_attention_out():
    published = config_to_published(CONFIGS["llama"])
    config = read(published, num_key_value_heads="absent", head_dim="absent", rope_scaling="absent")
    assert (config.kv_heads, config.head_size) == (4, 8)
    assert read(published, num_key_value_heads=None).kv_heads == 4


# Refusals


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2'"),
        ({"model_type": None}, "model_type 'None'"),
        ({}, "model_type"),
        ({"model_type": ["x"], "architectures": "LlamaForCausalLM"}, "model_type"),
        ({"model_type": "llama", "architectures": ["Llama4ForCausalLM"]}, "architecture 'Llama4ForCausalLM'"),
        ({"architectures": [7]}, "architecture 7"),
    ],
)
def test_an_unknown_architecture_lists_the_known_ones_and_says_how_to_add_it(found, named):
    with pytest.raises(InputError) as caught:
        config_from_published(found, PATH)
    message = str(caught.value)
    assert message.startswith("model/config.json: ")
    assert named in message
    assert "known ones: DeepseekV2ForCausalLM, " in message
    assert "docs/add-a-model.md" in message


@pytest.mark.parametrize(("architecture", "shape"), SHAPES)
def test_every_family_there_and_back(architecture, shape):
    config = config_from_published(config_json(architecture, shape), PATH)
    assert read(config_to_published(config)) == config
    check_pieces(config)


@pytest.mark.parametrize(
    ("family", "changes", "named"),
    [
        ("deepseek_v3", {"scoring_func": "softmax"}, "scoring_func = 'softmax'"),
        ("deepseek_v3", {"topk_method": "greedy"}, "topk_method = 'greedy'"),
        ("deepseek_v3", {"norm_topk_prob": False}, "norm_topk_prob = False"),
        ("deepseek_v3", {"moe_layer_freq": 2}, "moe_layer_freq = 2"),
        ("deepseek_v3", {"num_key_value_heads": 2}, "num_key_value_heads = 2"),
        (
            "qwen3",
            {"use_sliding_window": True, "max_window_layers": 0, "layer_types": None},
            "need sliding_window",
        ),
        ("qwen3", {"layer_types": ["full_attention", "sliding_attention"]}, "layer_types"),
        ("qwen3", {"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ("qwen3", {"attention_dropout": 0.1}, "attention_dropout = 0.1"),
        ("llama", {"rope_scaling": {"rope_type": "longrope", "factor": 8.0}}, "rope type 'longrope'"),
        ("llama", {"rope_scaling": {"rope_type": "llama3"}}, "rope_scaling.factor missing; llama3 needs it"),
        ("llama", {"rope_scaling": {"rope_type": "llama3", "factor": 8, "mscale": 1}}, "rope_scaling.mscale"),
        ("llama", {"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "rope type 'dynamic'"),
        ("llama", {"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor = 0.5"),
        ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
        ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 4, "truncate": "no"}}, "truncate"),
        ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 4, "finetuned": 1}}, "rope_scaling.finetuned"),
        ("qwen3", {"rope_scaling": {"type": "yarn"}}, "rope_scaling.factor missing"),
        ("qwen3", {"rope_scaling": {"type": "yarn", "factor": 4, "mscale": 0.7}}, "mscale"),
        ("qwen3", {"rope_scaling": [4]}, "rope_scaling = [4]"),
    ],
)
def test_a_switch_we_have_not_built_is_named(family, changes, named):
    with pytest.raises(InputError) as caught:
        read(config_to_published(CONFIGS[family]), **changes)
    assert str(caught.value).startswith("model/config.json: ")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


XIAOMI = {
    "architectures": ["MiMoV2FlashForCausalLM"],
    "layernorm_epsilon": 1e-4,
    "hybrid_layer_pattern": [0, 1, 0, 1],
    "moe_layer_freq": [0, 1, 0, 1],
    "rope_theta": 5_000_000,
    "swa_rope_theta": 20_000,
    "partial_rotary_factor": 0.334,
    "sliding_window": 7,
    "sliding_window_size": 7,
    "swa_num_attention_heads": 4,
    "swa_num_key_value_heads": 4,
    "swa_head_dim": 24,
    "swa_v_head_dim": 16,
    "add_swa_attention_sink_bias": True,
    "routed_scaling_factor": None,
    "n_shared_experts": None,
    "num_hidden_layers": 4,
}
THEIRS = ("rms_norm_eps", "layer_types", "mlp_layer_types", "rope_parameters", "model_type")


def xiaomis_own(**changes):
    """MiMo-V2-Flash's config.json under the keys that Xiaomi publishes and vLLM reads."""
    published = config_json("MiMoV2FlashForCausalLM", 0)
    return {key: value for key, value in published.items() if key not in THEIRS} | XIAOMI | changes


def test_mimo_v2s_own_keys_are_read():
    config = config_from_published(xiaomis_own(), PATH)
    full, sliding = "full_attention", "sliding_attention"
    assert config.layer_types == (full, sliding, full, sliding)
    assert [config.is_moe_layer(index) for index in range(4)] == [False, True, False, True]
    assert (config.rms_norm_eps, config.rope_theta, config.sliding_rope_theta) == (1e-4, 5e6, 2e4)
    assert (config.rotary_dim, config.sliding_window, config.sliding_key_value_heads) == (8, 8, 4)
    written = config_to_published(config)
    differs = ("sliding_window", "partial_rotary_factor", "routed_scaling_factor")  # said in another way
    for key in XIAOMI.keys() - set(differs) - {"n_shared_experts"}:
        assert written[key] == XIAOMI[key], key
    only_own = {key: value for key, value in written.items() if key not in THEIRS}
    assert config_from_published(only_own, PATH) == config


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"swa_head_dim": 12}, "swa_head_dim = 12 is not supported; only head_dim is"),
        ({"add_swa_attention_sink_bias": False}, "add_swa_attention_sink_bias = False is not supported"),
        ({"hybrid_layer_pattern": [0, 2, 0, 0]}, "only a list of 0 and 1 is"),
        ({"moe_layer_freq": [0, 1]}, r"moe_layer_freq (2) must name num_hidden_layers (4)"),
        ({"partial_rotary_factor": [0.3]}, "partial_rotary_factor = [0.3] has to be a number"),
        ({"partial_rotary_factor": float("inf")}, "partial_rotary_factor = inf has to be a number"),
    ],
)
def test_what_mimo_v2s_own_keys_ask_for_is_refused_by_name_where_we_lack_it(changes, named):
    with pytest.raises(InputError) as caught:
        config_from_published(xiaomis_own(**changes), PATH)
    assert str(caught.value).startswith("model/config.json: ")
    assert named in str(caught.value)


def test_mistral4_has_to_say_how_rotary_stretches():
    published = config_json("Mistral4ForCausalLM", 0)
    with pytest.raises(InputError, match="rope_parameters missing; a mistral4"):
        read(published, rope_theta="absent")


def test_missing_and_wrong_keys_are_named_as_published():
    published = config_to_published(CONFIGS["deepseek_v3"])
    with pytest.raises(
        InputError, match=r"config\.json: num_hidden_layers, kv_lora_rank missing; a deepseek"
    ):
        read(published, num_hidden_layers="absent", kv_lora_rank="absent")
    with pytest.raises(InputError, match=r"config\.json: num_hidden_layers: .*greater than 0"):
        read(published, num_hidden_layers=0)
    with pytest.raises(InputError, match=r"config\.json: n_routed_experts: .*valid integer"):
        read(published, n_routed_experts="many")
    with pytest.raises(InputError, match=r"config\.json: num_heads \(4\) must be divisible"):
        read(config_to_published(CONFIGS["llama"]), num_key_value_heads=3)


SOMETIMES = (
    "rope_parameters", "rope_scaling", "layer_types", "mlp_layer_types", "partial_rotary_factor",
    "mlp_only_layers", "decoder_sparse_step", "sliding_window", "max_window_layers", "sliding_window_size",
    "hybrid_layer_pattern", "moe_layer_freq", "swa_rope_theta", "swa_head_dim", "swa_num_key_value_heads",
    "num_nextn_predict_layers",
)  # fmt: skip
json_values = st.none() | st.booleans() | st.integers(-3, 40) | st.floats() | st.text(max_size=3)
json_tables = st.recursive(
    json_values,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_config_is_read_or_refused_in_one_line(data):
    published = config_json(*data.draw(st.sampled_from(SHAPES)))
    key = data.draw(st.sampled_from([*published, *SOMETIMES]))
    published[key] = data.draw(json_tables)
    refusal = ""
    try:
        config_from_published(published, PATH)
    except InputError as error:
        refusal = str(error)
    assert not refusal or (refusal.startswith("model/config.json: ") and "\n" not in refusal)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (LATENT | {"num_routed_experts": 4, "num_expert_groups": 4}, "must be at least 2 for each of"),
        (LATENT | {"num_routed_experts": 9}, "must be divisible by num_expert_groups"),
        (LATENT | {"moe_intermediate_size": 20}, r"moe_intermediate_size \(20\) must be a multiple of 8"),
        (LATENT | {"hidden_size": 36}, r"hidden_size \(36\) must be a multiple of 8"),
        (LATENT | {"num_experts_per_token": 5}, "at most the experts in num_limited_groups"),
        (LATENT | {"num_limited_groups": 5}, "must be at most num_expert_groups"),
        (LATENT | {"kv_lora_rank": None}, "needs kv_lora_rank"),
        (LATENT | {"kv_lora_rank": -4}, "greater than 0"),
        (LATENT | {"qk_rope_head_dim": 3}, "must be even"),
        (LATENT | {"head_dim": 8}, "head_dim belongs to grouped-query"),
        (GROUPED | {"family": "qwen3", "v_head_dim": 8}, "v_head_dim belongs to latent"),
        (GROUPED | {"family": "llama", "num_key_value_heads": 3}, "must be divisible by num_key_value_heads"),
        (GROUPED | {"family": "llama", "hidden_size": 30, "head_dim": 8}, "must be divisible by num_heads"),
        (GROUPED | {"family": "llama", "num_mtp_layers": 1}, "is not part of family llama"),
        (GROUPED | {"family": "qwen3", "rope_theta": 1.0}, "greater than 1"),
    ],
)
def test_impossible_dimensions_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**values)
