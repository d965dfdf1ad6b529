"""Families that transformers has not got, against the one there that each reduces to with its tensors renamed.

MiMo is Qwen2 beside its multi-token modules, openPangu Embedded is Llama with biases, openPangu Ultra is
DeepSeek-V3 beside its sandwich norms, which are held against GLM-4's. Sources of what reduces to what: vLLM's
`mimo.py`, `mimo_mtp.py` and `openpangu.py`.
"""

import copy
import json

import pytest
import torch

from clearseek.config.model import ModelConfig
from clearseek.model.checkpoint import load_tensors, save_model
from clearseek.model.export import export_model
from clearseek.model.families import config_from_published
from tests.model.published import config_json
from tests.model.tiny import tiny_model

transformers = pytest.importorskip("transformers")

from tests.model.test_parity_families import (  # noqa: E402
    LENGTH,
    TOLERANCE,
    compare_gradients,
    our_logits,
    some_tokens,
)

REDUCTIONS = [
    ("MiMoForCausalLM", shape, "Qwen2ForCausalLM", "qwen2", {}, r"model.mtp_layers.") for shape in range(3)
] + [
    ("PanguEmbeddedForCausalLM", shape, "LlamaForCausalLM", "llama", {"attention_bias": bias}, "none")
    for shape, bias in enumerate((True, False, True))
] + [
    ("PanguUltraMoEForCausalLM", 2, "DeepseekV3ForCausalLM", "deepseek_v3", {"n_group": 1, "topk_group": 1}, "none")
]  # fmt: skip


@pytest.mark.parametrize(
    ("architecture", "shape", "known", "model_type", "changes", "dropped"),
    REDUCTIONS,
    ids=lambda value: str(value)[:24],
)
def test_a_family_is_another_with_its_tensors_renamed(
    architecture, shape, known, model_type, changes, dropped, tmp_path
):
    config = config_from_published(config_json(architecture, shape), tmp_path / "config.json")
    ours = tiny_model(config)
    theirs = reduced(ours, known, model_type, changes, dropped, tmp_path)
    tokens = some_tokens(ours, rows=2)
    expected, logits = theirs(tokens).logits, our_logits(ours, tokens)
    assert expected.abs().max() > 1
    assert (logits - expected).abs().max() <= TOLERANCE
    for scores in (logits, expected):
        scores.log_softmax(-1)[..., 5].sum().backward()
    assert compare_gradients(ours, theirs) <= TOLERANCE


def reduced(ours, known, model_type, changes, dropped, directory):
    """Our checkpoint opened by transformers under another family's name."""
    save_model(ours, directory, bos_id=None, eos_id=None, pad_id=None)
    path = directory / "config.json"
    published = json.loads(path.read_text()) | changes | {"architectures": [known], "model_type": model_type}
    path.write_text(json.dumps(published))
    model, report = getattr(transformers, known).from_pretrained(
        directory,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    # a selection bias that this family switches off stays at its zeros
    missing = [name for name in report["missing_keys"] if not name.endswith("e_score_correction_bias")]
    assert not missing
    assert not [name for name in report["unexpected_keys"] if not name.startswith(dropped)]
    for name, buffer in model.named_buffers():
        if name in report["missing_keys"]:
            buffer.zero_()
    return model.eval()


PUBLISHED = """
from transformers import Qwen2Config, Qwen2ForCausalLM

class MiMoConfig(Qwen2Config):
    model_type = "mimo"

class MiMoForCausalLM(Qwen2ForCausalLM):
    config_class = MiMoConfig
"""


def test_transformers_opens_an_export_by_the_code_that_the_model_came_with(tmp_path, monkeypatch):
    config = config_from_published(config_json("MiMoForCausalLM", 1), tmp_path / "config.json")
    ours = tiny_model(config)
    save_model(ours, tmp_path / "base", bos_id=0, eos_id=1, pad_id=2)
    path = tmp_path / "base" / "config.json"
    auto_map = {"AutoConfig": "code.MiMoConfig", "AutoModelForCausalLM": "code.MiMoForCausalLM"}
    auto_map = {key: f"modeling_{value}" for key, value in auto_map.items()}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": auto_map}))
    (tmp_path / "base" / "modeling_code.py").write_text(PUBLISHED)
    out = export_model(tmp_path / "base", "hf", None, tmp_path / "out").path
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        out, trust_remote_code=True, dtype=torch.float32
    )
    assert type(theirs).__module__.endswith("modeling_code")
    tokens = some_tokens(ours, rows=2)
    with torch.no_grad():
        assert (our_logits(ours, tokens) - theirs(tokens).logits).abs().max() <= TOLERANCE


def test_mimos_multi_token_module_is_a_qwen2_layer_on_joined_halves(tmp_path):
    from transformers.models.qwen2 import modeling_qwen2 as qwen2

    config = config_from_published(config_json("MiMoForCausalLM", 0), tmp_path / "config.json")
    ours = tiny_model(config)
    theirs = reduced(ours, "Qwen2ForCausalLM", "qwen2", {}, "model.mtp_layers.", tmp_path)
    tensors, _ = load_tensors(tmp_path / "model.safetensors")
    part = {
        name.removeprefix("model.mtp_layers.0."): tensor
        for name, tensor in tensors.items()
        if name.startswith("model.mtp_layers.0.")
    }
    layer = qwen2.Qwen2DecoderLayer(theirs.config, 0)
    own = ("token_layernorm.", "hidden_layernorm.", "input_proj.", "final_layernorm.")
    layer.load_state_dict({name: tensor for name, tensor in part.items() if not name.startswith(own)})

    def norm(x, name):
        module = qwen2.Qwen2RMSNorm(config.hidden_size, config.rms_norm_eps)
        module.weight.data = part[f"{name}.weight"]
        return module(x)

    tokens = some_tokens(ours, rows=2)
    with torch.no_grad():
        states = theirs.model(tokens).last_hidden_state[:, :-1]
        embeddings = theirs.model.embed_tokens(tokens)[:, 1:]
        halves = norm(states, "hidden_layernorm"), norm(embeddings, "token_layernorm")
        joined = torch.cat(halves, dim=-1) @ part["input_proj.weight"].T
        expected, logits = predicted(
            theirs, ours, layer, joined, tokens, lambda x: norm(x, "final_layernorm")
        )
    assert (logits - expected).abs().max() <= TOLERANCE


def predicted(theirs, ours, layer, joined, tokens, norm, window=LENGTH, kind=()):
    """What their layer makes of joined halves [B, T, hidden], and what our first multi-token module says instead."""
    places = torch.arange(LENGTH - 1)[None]
    full = torch.full((LENGTH - 1, LENGTH - 1), float("-inf"))
    mask = (full.triu(1) + full.tril(-window))[None, None]
    turns = theirs.model.rotary_emb(joined, places, *kind)
    out = layer(joined, attention_mask=mask, position_ids=places, position_embeddings=turns)
    expected = theirs.lm_head(norm(out[0] if isinstance(out, tuple) else out))
    hidden = ours(tokens, torch.ones_like(tokens), depth=1)
    return expected, ours.logits(hidden.predicted_states[0][:, :-1])


def test_hy3s_multi_token_module_is_its_own_layer_on_joined_halves(tmp_path):
    """The embedding first, and a norm before the main head, as vLLM's `hy_v3_mtp.py` has it."""
    from transformers.models.hy_v3 import modeling_hy_v3 as hy3

    published = config_json("HYV3ForCausalLM", 0) | {"num_nextn_predict_layers": 1}
    ours = tiny_model(config_from_published(published, tmp_path / "config.json"))
    theirs = reduced(ours, "HYV3ForCausalLM", "hy_v3", {}, "model.layers.3.", tmp_path)
    # theirs with a layer more reads the module's layer by its number
    longer = {"num_hidden_layers": 4, "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}
    layer = reduced(ours, "HYV3ForCausalLM", "hy_v3", longer, "model.layers.3.", tmp_path).model.layers[3]
    tensors, _ = load_tensors(tmp_path / "model.safetensors")

    def norm(x, name):
        module = hy3.HYV3RMSNorm(ours.config.hidden_size, ours.config.rms_norm_eps)
        module.weight.data = tensors[f"model.layers.3.{name}.weight"]
        return module(x)

    tokens = some_tokens(ours, rows=2)
    with torch.no_grad():
        states = theirs.model(tokens).last_hidden_state[:, :-1]
        halves = norm(theirs.model.embed_tokens(tokens)[:, 1:], "enorm"), norm(states, "hnorm")
        joined = torch.cat(halves, dim=-1) @ tensors["model.layers.3.eh_proj.weight"].T
        expected, logits = predicted(
            theirs, ours, layer, joined, tokens, lambda x: norm(x, "final_layernorm")
        )
    assert expected.abs().max() > 1
    assert (logits - expected).abs().max() <= TOLERANCE


def module_of(published, known, model_type, directory):
    """Our model with a multi-token module, theirs without, and the file's tensors beside theirs."""
    ours = tiny_model(
        config_from_published(published | {"num_nextn_predict_layers": 1}, directory / "config.json")
    )
    theirs = reduced(ours, known, model_type, {}, "model.mtp", directory)
    return ours, theirs, load_tensors(directory / "model.safetensors")[0]


def part_of(tensors, prefix, renamed):
    """A layer's tensors without their prefix, under transformers' names."""
    found = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return {renamed.get(name, name): tensor for name, tensor in found.items()}


def rms_norm(x, weight, eps):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def test_ernies_multi_token_module_is_its_dense_layer_before_the_shared_norm(tmp_path):
    """Of states before that norm, the embedding first: the authors' training code, PaddlePaddle/ERNIE's
    `modeling_moe.py` (`mtp_emb_norm`, `mtp_hidden_norm`, `mtp_linear_proj`, `mtp_block`, then the model's norm).
    """
    from transformers.models.ernie4_5_moe import modeling_ernie4_5_moe as ernie

    published = config_json("Ernie4_5_MoeForCausalLM", 0)
    ours, theirs, tensors = module_of(published, "Ernie4_5_MoeForCausalLM", "ernie4_5_moe", tmp_path)
    layer = ernie.Ernie4_5_MoeDecoderLayer(theirs.config, 0)
    layer.load_state_dict(part_of(tensors, "model.mtp_block.0.", {}))
    tokens, eps = some_tokens(ours, rows=2), ours.config.rms_norm_eps
    before = []
    theirs.model.norm.register_forward_pre_hook(lambda _, inputs: before.append(inputs[0]))
    with torch.no_grad():
        theirs.model(tokens)
        halves = [
            rms_norm(part, tensors[f"model.mtp_{name}_norm.0.weight"], eps)
            for name, part in (
                ("emb", theirs.model.embed_tokens(tokens)[:, 1:]),
                ("hidden", before[0][:, :-1]),
            )
        ]
        joined = torch.cat(halves, dim=-1) @ tensors["model.mtp_linear_proj.0.weight"].T
        expected, logits = predicted(theirs, ours, layer, joined, tokens, theirs.model.norm)
    assert expected.abs().max() > 1
    assert (logits - expected).abs().max() <= TOLERANCE


def test_mimo_v2s_multi_token_module_is_its_dense_layer_with_a_window(tmp_path):
    """The embedding first, and sinks, as vLLM's `mimo_v2_mtp.py` has it."""
    from transformers.models.mimo_v2_flash import modeling_mimo_v2_flash as flash

    published = config_json("MiMoV2FlashForCausalLM", 0)
    ours, theirs, tensors = module_of(published, "MiMoV2FlashForCausalLM", "mimo_v2_flash", tmp_path)
    config = copy.deepcopy(theirs.config)
    config._attn_implementation = "eager"
    config.mlp_layer_types = ["dense"] * 3
    layer = flash.MiMoV2FlashDecoderLayer(config, config.layer_types.index("sliding_attention"))
    prefix = "model.mtp.layers.0."
    renamed = {
        "self_attn.attention_sink_bias": "self_attn.sinks",
        "pre_mlp_layernorm.weight": "post_attention_layernorm.weight",
    }
    part = part_of(tensors, prefix, renamed)
    own = ("enorm.", "hnorm.", "eh_proj.", "final_layernorm.")
    layer.load_state_dict({name: tensor for name, tensor in part.items() if not name.startswith(own)})
    tokens, eps = some_tokens(ours, rows=2), ours.config.rms_norm_eps
    with torch.no_grad():
        states = theirs.model(tokens).last_hidden_state[:, :-1]
        embeddings = theirs.model.embed_tokens(tokens)[:, 1:]
        halves = [
            rms_norm(value, part[f"{name}.weight"], eps)
            for name, value in (("enorm", embeddings), ("hnorm", states))
        ]
        joined = torch.cat(halves, dim=-1) @ part["eh_proj.weight"].T
        expected, logits = predicted(
            theirs, ours, layer, joined, tokens,
            lambda x: rms_norm(x, part["final_layernorm.weight"], eps),
            config.sliding_window, ("sliding_attention",),
        )  # fmt: skip
    assert expected.abs().max() > 1
    assert (logits - expected).abs().max() <= TOLERANCE


def test_sandwich_norms_are_glm4s(tmp_path):
    """GLM-4 places its norms as openPangu Ultra does, and turns pairs of the first part of a head besides."""
    config = ModelConfig(
        family="PanguEmbedded", vocab_size=97, hidden_size=32, num_layers=3, num_heads=4, num_key_value_heads=2,
        head_dim=8, rotary_head_dim=4, rotates_pairs=True, intermediate_size=48, sandwich_norm=True,
        rms_norm_eps=1e-5, qkv_bias=True, rope_theta=100.0,
    )  # fmt: skip
    ours = tiny_model(config)
    theirs = transformers.Glm4ForCausalLM(
        transformers.Glm4Config(
            vocab_size=97, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
            head_dim=8, intermediate_size=48, rms_norm_eps=1e-5, attention_bias=True, pad_token_id=0,
            rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5},
            attn_implementation="eager",
        )
    ).eval()  # fmt: skip
    theirs.load_state_dict(as_glm4(ours))
    tokens = some_tokens(ours, rows=2)
    with torch.no_grad():
        expected, logits = theirs(tokens).logits, our_logits(ours, tokens)
    assert (logits - expected).abs().max() <= TOLERANCE


def as_glm4(model):
    """Our tensors under GLM-4's names."""
    names = {
        "attention_norm.weight": "input_layernorm.weight",
        "mixed_norm.weight": "post_self_attn_layernorm.weight",
        "feed_forward_norm.weight": "post_attention_layernorm.weight",
        "fed_norm.weight": "post_mlp_layernorm.weight",
        "attention.q.weight": "self_attn.q_proj.weight",
        "attention.q.bias": "self_attn.q_proj.bias",
        "attention.out.weight": "self_attn.o_proj.weight",
        "feed_forward.gate_up.weight": "mlp.gate_up_proj.weight",
        "feed_forward.down.weight": "mlp.down_proj.weight",
    }
    state = {
        "model.embed_tokens.weight": model.embedding.weight,
        "model.norm.weight": model.norm.weight,
        "lm_head.weight": model.head.weight,
    }
    for number, layer in enumerate(model.layers):
        own, prefix = layer.state_dict(), f"model.layers.{number}"
        state |= {f"{prefix}.{theirs}": own[ours] for ours, theirs in names.items()}
        for kind in ("weight", "bias"):
            key, value = own[f"attention.kv.{kind}"].chunk(2)
            state |= {f"{prefix}.self_attn.k_proj.{kind}": key, f"{prefix}.self_attn.v_proj.{kind}": value}
    return state
