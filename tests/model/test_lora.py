"""Low-rank adapters against the formula: what is merged, what learns, what is refused, and files both ways."""

import contextlib
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError, RunError
from clearseek.config.lora import Lora
from clearseek.model.families import FAMILIES, pieces_of
from clearseek.model.lora import Adapter, linear_modules, targeted
from clearseek.model.peft_format import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    dropout_of,
    read_adapter,
    write_adapter,
)
from clearseek.model.stored import load_tensors, save_tensors
from tests.model.adapted import adapter_over, key_of
from tests.model.every_family import every_family
from tests.model.tiny import CONFIGS, some_tokens, tiny_model

EVERY = ["all-linear"]


SHAPES = CONFIGS | every_family()


def test_every_family_is_here():
    assert {config.family for config in SHAPES.values()} == set(FAMILIES)


@pytest.mark.parametrize("name", SHAPES)
def test_merging_adds_the_scaled_product_to_each_published_tensor(name):
    """T1: tensor by tensor, W + alpha / rank · B A; what is not named stays, bit for bit."""
    model, adapter = tiny_model(SHAPES[name]), adapter_over(SHAPES[name], EVERY)
    before, after = model.state_dict(), adapter.merged_model(model).state_dict()
    for piece in pieces_of(model.config):
        expected = piece.of(before[piece.ours])
        module = piece.published.removesuffix(".weight")
        if piece.kind == "own" and module in adapter.factors:
            a, b = adapter.factors[module]
            expected = expected + 6.0 / 4 * (b @ a)
        torch.testing.assert_close(piece.of(after[piece.ours]), expected, rtol=1e-6, atol=1e-6)
    adapter.merge_into(model)
    assert all(torch.equal(tensor, after[key]) for key, tensor in model.state_dict().items())


TOGETHER = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]


@pytest.mark.parametrize("family", ["qwen3_moe", "gpt_oss"])
@pytest.mark.parametrize("targets", [TOGETHER, TOGETHER[1:], ["q_proj", *TOGETHER[:1]]])
def test_experts_together_are_merged_by_pefts_formula(family, targets, tmp_path):
    """einsum("ore,eri->eoi", B, A) and its gradients, over the published tensor: gpt-oss's is [E, in, out]."""
    config = SHAPES[family]
    model, adapter = tiny_model(config), adapter_over(config, targets)
    merged, parameters, checked = adapter.merged(model), dict(model.named_parameters()), 0
    for name, module in adapter.modules.items():
        if not module.experts:
            continue
        a, b = (factor.detach().clone().requires_grad_() for factor in adapter.factors[name])
        each_a, each_b = a.view(module.experts, 4, -1), b.view(len(b), 4, module.experts)
        added = 1.5 * torch.einsum("ore,eri->eio" if family == "gpt_oss" else "ore,eri->eoi", each_b, each_a)
        ours, before = (
            module.piece.of(whole) for whole in (merged[module.piece.ours], parameters[module.piece.ours])
        )
        torch.testing.assert_close(ours, before.detach() + added.reshape(ours.shape), rtol=1e-5, atol=1e-5)
        along = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
        found = torch.autograd.grad((ours * along).sum(), adapter.factors[name], retain_graph=True)
        wanted = torch.autograd.grad((added.reshape(ours.shape) * along).sum(), (a, b))
        for mine, theirs in zip(found, wanted, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
        checked += 1
    assert checked == 3 * len(set(targets) & set(TOGETHER))
    write_adapter(adapter, tmp_path, "base")
    back = read_adapter(tmp_path, config)
    assert sorted(back.settings.targets or []) == sorted(targets)
    assert back.factors.keys() == adapter.factors.keys()
    for key, tensor in back.state_dict().items():
        assert torch.equal(tensor, adapter.state_dict()[key])


@pytest.mark.parametrize("name", SHAPES)
def test_every_linear_map_of_the_layers_is_found_and_nothing_else(name):
    """What is left of the layers' matrices are the routers, and experts that are published stacked."""
    config = SHAPES[name]
    modules, model = linear_modules(config), tiny_model(config)
    covered = {key: 0 for key, _ in model.named_parameters()}
    for module in modules.values():
        covered[module.piece.ours] += module.shape[0] * module.shape[1]
    stacked = {piece.ours for piece in pieces_of(config) if not piece.published.endswith((".weight", "bias"))}
    for key, parameter in model.named_parameters():
        is_map = (
            key.startswith("layers.") and parameter.ndim > 1 and not key.endswith(("router.weight", "bias"))
        )
        if is_map and not (key in stacked and parameter.ndim > 2) and ".indexer." not in key:
            assert covered[key] == parameter.numel(), key
        elif parameter.ndim > 1 and ".indexer." not in key:
            assert not covered[key], key
    assert not any("embed" in module or "lm_head" in module or "gate.weight" in module for module in modules)


def test_gradients_of_the_factors_are_the_formula_s():
    """T2: against torch's own differentiation of the same sum, in fp64."""
    config = CONFIGS["deepseek_v3"]
    model, adapter = tiny_model(config).double(), adapter_over(config, EVERY)
    for _, parameter in adapter.named_parameters():
        parameter.data = parameter.data.double()
    merged = adapter.merged(model)
    torch.manual_seed(0)
    slopes = {key: torch.randn_like(tensor) for key, tensor in merged.items()}
    sum((merged[key] * slopes[key]).sum() for key in merged).backward()
    for name, (a, b) in adapter.factors.items():
        piece = adapter.modules[name].piece
        plain_a, plain_b = (tensor.detach().clone().requires_grad_() for tensor in (a, b))
        (6.0 / 4 * (plain_b @ plain_a) * piece.of(slopes[piece.ours])).sum().backward()
        torch.testing.assert_close(a.grad, plain_a.grad)
        torch.testing.assert_close(b.grad, plain_b.grad)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_narrower_dtype_is_rounded_once():
    config = CONFIGS["llama"]
    model, adapter = tiny_model(config), adapter_over(config, EVERY)
    wide, narrow = adapter.merged(model), adapter.merged(model, torch.bfloat16)
    assert all(torch.equal(wide[key].bfloat16(), narrow[key]) for key in wide)


def test_a_fresh_adapter_changes_nothing_and_does_not_depend_on_its_neighbours():
    config = CONFIGS["qwen3"]
    model = tiny_model(config)
    one = Adapter.fresh(config, Lora(rank=3), key_of, "targets")
    assert all(torch.equal(t, model.state_dict()[key]) for key, t in one.merged(model).items())
    other = Adapter.fresh(config, Lora(rank=3, targets=["v_proj"]), key_of, "targets")
    for name, (a, _) in other.factors.items():
        assert torch.equal(a, one.factors[name][0])
        assert float(a.detach().abs().max()) <= a.shape[1] ** -0.5


def test_targets_name_modules_whole_or_from_a_dot_on():
    config = CONFIGS["deepseek_v3"]
    assert len(targeted(config, ["o_proj"])) == config.num_layers
    assert list(targeted(config, ["layers.1.self_attn.o_proj"])) == ["model.layers.1.self_attn.o_proj"]
    experts = targeted(config, ["experts.3.gate_proj"])
    assert list(experts) == [f"model.layers.{n}.mlp.experts.3.gate_proj" for n in (1, 2)]
    assert len(targeted(config, ["shared_experts.up_proj"])) == 2
    with pytest.raises(
        InputError, match=r"targets: 'k_proj' names no linear map of this deepseek_v3; did you"
    ):
        targeted(config, ["o_proj", "k_proj"])
    with pytest.raises(InputError, match="names no linear map"):
        targeted(config, ["proj"])


@pytest.mark.parametrize("name", SHAPES)
def test_an_adapter_comes_back_as_it_was_written(name, tmp_path):
    adapter = adapter_over(SHAPES[name], EVERY, rslora=True)
    write_adapter(adapter, tmp_path, "base")
    back = read_adapter(tmp_path, SHAPES[name])
    assert back.settings.scale == adapter.settings.scale
    expected, found = adapter.state_dict(), back.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_adapted_weights_reach_every_form_of_a_pass():
    """Training's pass with merged weights, a merged model's pass, its prefill and its decoding say the same."""
    config = CONFIGS["deepseek_v3"]
    model, adapter = tiny_model(config), adapter_over(config, EVERY)
    tokens = some_tokens(config, rows=2, length=9)
    merged = adapter.merged_model(model)
    with torch.no_grad():
        through = torch.func.functional_call(model, adapter.merged(model), (tokens, torch.ones_like(tokens)))
        plain = merged(tokens, torch.ones_like(tokens)).states
        assert torch.equal(through.states, plain)
        caches = merged.prefill(tokens, torch.float32)
        decoded = merged.decode(tokens[:, -1:], torch.tensor([[8], [8]]), caches, torch.float32)[:, 0]
    torch.testing.assert_close(decoded, plain[:, -1], rtol=1e-4, atol=1e-4)


@pytest.mark.skipif("deepseek_v32" not in SHAPES, reason="no family with an indexer is here")
def test_what_no_gradient_reaches_is_no_target():
    config = SHAPES["deepseek_v32"]
    assert not any("indexer" in name for name in targeted(config, EVERY))
    with pytest.raises(InputError, match="only chooses what is attended to"):
        Adapter.fresh(config, Lora(targets=["q_b_proj", "wk"]), key_of, "targets")


@pytest.fixture
def written(tmp_path):
    write_adapter(adapter_over(CONFIGS["llama"], ["q_proj", "down_proj"]), tmp_path, "base")
    return tmp_path


def change(folder, **values):
    path = folder / ADAPTER_CONFIG_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"use_dora": True}, "use_dora = True is not supported"),
        ({"bias": "all"}, "bias = 'all' is not supported"),
        ({"lora_bias": True}, "lora_bias = True is not supported"),
        ({"modules_to_save": ["lm_head"]}, r"modules_to_save = \['lm_head'\] is not supported"),
        ({"rank_pattern": {"q_proj": 8}}, r"rank_pattern = .* is not supported"),
        ({"alpha_pattern": {"q_proj": 8}}, r"alpha_pattern = .* is not supported"),
        (
            {"target_parameters": ["experts.down_proj"]},
            "target_parameters = 'experts.down_proj' is not supported; only mlp.experts.gate_up_proj",
        ),
        ({"target_parameters": "experts.down_proj"}, "target_parameters is .*; it has to be names in a list"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out = True is not supported"),
        ({"something_new": 3}, "something_new = 3 is not supported"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA"),
        ({"r": 0}, "r is 0"),
        ({"r": 2**70}, "r is 1180591620717411303424"),
        ({"lora_alpha": float("nan")}, "lora_alpha is nan"),
        ({"lora_alpha": 10**400}, "lora_alpha is 1000"),
        ({"lora_alpha": float("inf")}, "lora_alpha is inf"),
        ({"r": "4"}, "r is '4'"),
        ({"r": 5}, r"lora_A.weight is \[4, 32\], but the base and its r make it \[5, 32\]"),
        ({"lora_alpha": -1}, "lora_alpha is -1"),
        ({"target_modules": ["w1"]}, "names no linear map of this llama"),
        ({"target_modules": None}, "has to be names in a list, or an expression"),
        ({"target_modules": ["q_proj"]}, "6 tensors left over that target_modules does not name"),
        ({"target_modules": ["q_proj", "down_proj", "up_proj"]}, "up_proj.lora_A.weight is missing"),
    ],
)
def test_what_we_lack_is_refused_by_name(written, values, message):
    change(written, **values)
    with pytest.raises(InputError, match=message):
        read_adapter(written, CONFIGS["llama"])


def test_notes_of_other_tools_are_no_reason_to_refuse(written):
    change(written, lora_dropout=0.05, loftq_config={}, peft_version="0.21.2", qalora_group_size=16)
    change(written, megatron_core="megatron.core", layers_pattern=None, task_type=None)
    change(written, target_modules=["q_proj", "down_proj", "w1"])
    assert len(read_adapter(written, CONFIGS["llama"]).factors) == 6


def test_an_expression_is_taken_by_the_factors_that_it_left(written):
    """A stranger's expression is never evaluated: this one would not end."""
    change(written, target_modules="(m+|o+|[^!]+)+!")
    assert len(read_adapter(written, CONFIGS["llama"]).factors) == 6
    save_tensors(written / ADAPTER_FILE, {"base_model.model.lm_head.lora_A.weight": torch.zeros(4, 32)})
    with pytest.raises(InputError, match=r"names no linear map of this llama"):
        read_adapter(written, CONFIGS["llama"])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = (
    "peft_type", "r", "lora_alpha", "target_modules", "use_rslora", "bias", "lora_dropout", "use_dora",
    "target_parameters",
)  # fmt: skip


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), VALUES, max_size=3))
def test_whatever_a_config_says_is_read_or_refused(written, values):
    path = written / ADAPTER_CONFIG_FILE
    before = path.read_text()
    change(written, **values)
    with contextlib.suppress(InputError):
        dropout_of(written)
    with contextlib.suppress(InputError):
        assert len(read_adapter(written, CONFIGS["llama"]).factors) == 6
    path.write_text(before)


def test_a_torn_file_is_named(written):
    path = written / ADAPTER_FILE
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(RunError, match=r"adapter_model.safetensors: torn"):
        read_adapter(written, CONFIGS["llama"])


def test_a_base_of_other_shapes_is_refused(written):
    wide = CONFIGS["llama"].model_copy(update={"hidden_size": 64})
    with pytest.raises(InputError, match="belongs to the base that it was trained on"):
        read_adapter(written, wide)
    with pytest.raises(InputError, match=r"layers.3.self_attn.q_proj.lora_A.weight is missing"):
        read_adapter(written, CONFIGS["llama"].model_copy(update={"num_layers": 4}))


def test_what_is_missing_is_named(written, tmp_path):
    with pytest.raises(InputError, match="no such file; give the directory of an adapter in PEFT's format"):
        read_adapter(tmp_path / "nowhere", CONFIGS["llama"])
    tensors, _ = load_tensors(written / ADAPTER_FILE)
    tensors["base_model.model.lm_head.lora_A.weight"] = torch.zeros(4, 32)
    save_tensors(written / ADAPTER_FILE, tensors)
    with pytest.raises(InputError, match="1 tensors left over"):
        read_adapter(written, CONFIGS["llama"])
    (written / ADAPTER_FILE).unlink()
    (written / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="read from safetensors only"):
        read_adapter(written, CONFIGS["llama"])
