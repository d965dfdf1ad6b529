"""Adapters beside PEFT's: the same logits merged, the same gradients of A and B, opened both ways.

Run where peft and transformers are (`make peers`); skipped elsewhere.
"""

import json
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.func import functional_call

from clearseek.config.model import ModelConfig
from clearseek.model.checkpoint import save_model
from clearseek.model.lora import linear_modules
from clearseek.model.peft_format import read_adapter, write_adapter
from tests.model.adapted import adapter_over
from tests.model.every_family import every_family
from tests.model.tiny import CONFIGS, LATENT, some_tokens, tiny_model

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

TOLERANCE = 1e-4
LENGTH = 12
ALL_EXPERTS = ModelConfig(**LATENT | {"num_dense_layers": 0, "num_shared_experts": 0})


def adaptable(config):
    """What PEFT adapts of a family: everything, but where there are experts attention alone (see peft_format.py)."""
    if not config.num_routed_experts:
        return ["all-linear"]
    inside = (name for name in linear_modules(config) if ".self_attn." in name and "indexer" not in name)
    return sorted({name.rpartition(".")[2] for name in inside})


CASES = {
    "llama, keys alone": (CONFIGS["llama"], ["k_proj", "up_proj"]),
    "deepseek_v3 dense": (CONFIGS["deepseek_v3 dense"], ["q_b_proj", "kv_b_proj"]),
    "deepseek_v3 without query latent": (
        CONFIGS["deepseek_v3 without query latent"],
        adaptable(CONFIGS["deepseek_v3 without query latent"]),
    ),
    **{
        name: (config, adaptable(config))
        for name, config in every_family().items()
        if name in transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES
    },
}


def saved(model, adapter, folder):
    save_model(model, folder / "base", bos_id=0, eos_id=1, pad_id=2)
    write_adapter(adapter, folder / "adapter", "base")


def their_base(folder, name="base"):
    """The class that config.json names: transformers has some of which AutoModelForCausalLM does not know."""
    table = json.loads((folder / name / "config.json").read_text())
    return getattr(transformers, table["architectures"][0]).from_pretrained(
        folder / name, dtype=torch.float32, attn_implementation="eager", experts_implementation="eager"
    )


def theirs(folder, trainable=False):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # PEFT warns of factors that it found no place for
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", message="Initializing zero-element tensors")  # no shared experts
        warnings.filterwarnings(
            "ignore", message="The following (rank|alpha)_pattern keys"
        )  # it does use them
        return peft.PeftModel.from_pretrained(their_base(folder), folder / "adapter", is_trainable=trainable)


def our_logits(model, adapter, tokens):
    states = functional_call(model, adapter.merged(model), (tokens, torch.ones_like(tokens)), {"depth": 0})
    return model.logits(states.states)


@pytest.mark.parametrize("rslora", [False, True], ids=["by rank", "by its root"])
@pytest.mark.parametrize("name", CASES)
def test_peft_opens_ours_with_the_same_logits_and_gradients(name, rslora, tmp_path):
    config, targets = CASES[name]
    model, adapter = tiny_model(config), adapter_over(config, targets, rslora)
    saved(model, adapter, tmp_path)
    other = theirs(tmp_path, trainable=True)
    tokens = some_tokens(config, rows=2, length=LENGTH)

    ours, expected = our_logits(model, adapter, tokens), other(tokens).logits
    assert (ours - expected).abs().max().item() <= TOLERANCE
    assert (ours - model.logits(model(tokens, torch.ones_like(tokens), depth=0).states)).abs().max() > 0.1

    for logits in (ours, expected):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    found = dict(adapter.named_parameters())
    checked = 0
    for key, parameter in other.named_parameters():
        if not parameter.requires_grad:
            continue
        mine = found[key.removeprefix("base_model.model.").replace(".default", "")].grad
        scale = parameter.grad.abs().max().item() + 1e-3
        assert (mine - parameter.grad).abs().max().item() / scale <= TOLERANCE, key
        checked += 1
    assert checked == len(found)


def test_peft_opens_adapted_experts(tmp_path):
    """Experts by their single names, which PEFT stacks as it opens them."""
    model = tiny_model(ALL_EXPERTS)
    adapter = adapter_over(ALL_EXPERTS, ["all-linear"])
    saved(model, adapter, tmp_path)
    other = theirs(tmp_path)
    tokens = some_tokens(ALL_EXPERTS, rows=2, length=LENGTH)
    with torch.no_grad():
        difference = (our_logits(model, adapter, tokens) - other(tokens).logits).abs().max().item()
    print(f"max difference {difference:.1e}")
    assert difference <= TOLERANCE


TOGETHER = {
    "both": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    "one": ["mlp.experts.down_proj"],
    "with attention": ["o_proj", "mlp.experts.gate_up_proj"],
}
WITH_EXPERTS = sorted(
    name for name, (config, _) in CASES.items() if config.num_routed_experts and name != "deepseek_v32"
)


@pytest.mark.parametrize("targets", TOGETHER.values(), ids=TOGETHER)
@pytest.mark.parametrize("name", WITH_EXPERTS)
def test_experts_together_open_both_ways(name, targets, tmp_path):
    """PEFT's target_parameters: ours opened there with its gradients, theirs opened here."""
    config, _ = CASES[name]
    model, adapter = tiny_model(config), adapter_over(config, targets)
    saved(model, adapter, tmp_path)
    other = theirs(tmp_path, trainable=True)
    tokens = some_tokens(config, rows=2, length=LENGTH)
    ours, expected = our_logits(model, adapter, tokens), other(tokens).logits
    assert (ours - expected).abs().max().item() <= TOLERANCE
    assert (ours - model.logits(model(tokens, torch.ones_like(tokens), depth=0).states)).abs().max() > 0.1
    for logits in (ours, expected):
        F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    mine = sorted(factor.grad.norm().item() for _, factor in adapter.named_parameters())
    gradients = sorted(p.grad.norm().item() for p in other.parameters() if p.requires_grad)
    assert mine == pytest.approx(gradients, rel=1e-3, abs=1e-5)

    other.save_pretrained(tmp_path / "back")
    again = read_adapter(tmp_path / "back", config)
    assert again.factors.keys() == adapter.factors.keys()
    for key, tensor in again.state_dict().items():
        assert torch.equal(tensor, adapter.state_dict()[key])


@pytest.mark.parametrize("name", CASES)
def test_what_peft_saves_opens_here(name, tmp_path):
    """Its own target_modules (names spelt out), its own layout, merged: the same logits."""
    config, targets = CASES[name]
    model = tiny_model(config)
    save_model(model, tmp_path / "base", bos_id=0, eos_id=1, pad_id=2)
    names = targets[0] if targets == ["all-linear"] else targets
    settings = peft.LoraConfig(
        r=3, lora_alpha=5, target_modules=names, init_lora_weights=False, task_type="CAUSAL_LM"
    )
    torch.manual_seed(0)
    other = peft.get_peft_model(their_base(tmp_path), settings)
    other.save_pretrained(tmp_path / "adapter")

    adapter = read_adapter(tmp_path / "adapter", config)
    tokens = some_tokens(config, rows=2, length=LENGTH)
    with torch.no_grad():
        expected = other(tokens).logits
        merged = adapter.merged_model(model)
        found = merged.logits(merged(tokens, torch.ones_like(tokens), depth=0).states)
        other.merge_and_unload().save_pretrained(tmp_path / "merged")
    assert (found - expected).abs().max().item() <= TOLERANCE
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["r"] == 3
    whole = their_base(tmp_path, "merged")
    with torch.no_grad():
        assert (found - whole(tokens).logits).abs().max().item() <= TOLERANCE


def test_an_expression_names_what_it_names_there(tmp_path):
    config = CONFIGS["llama"]
    save_model(tiny_model(config), tmp_path / "base", bos_id=0, eos_id=1, pad_id=2)
    settings = peft.LoraConfig(r=2, target_modules=r".*\.[12]\..*(q_proj|down_proj)", task_type="CAUSAL_LM")
    peft.get_peft_model(their_base(tmp_path), settings).save_pretrained(tmp_path / "adapter")
    adapter = read_adapter(tmp_path / "adapter", config)
    assert sorted(adapter.modules) == [
        "model.layers.1.mlp.down_proj",
        "model.layers.1.self_attn.q_proj",
        "model.layers.2.mlp.down_proj",
        "model.layers.2.self_attn.q_proj",
    ]
