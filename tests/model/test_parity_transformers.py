"""Our checkpoints opened by transformers, and theirs by us: the same logits and the same gradients.

Run where transformers is (`make peers`); skipped elsewhere.
"""

import json

import pytest
import torch
import torch.nn.functional as F

from clearseek.model.checkpoint import load_model, save_model
from clearseek.model.families import pieces_of
from tests.model.tiny import CONFIGS, some_tokens, tiny_model

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
LENGTH = 40  # beyond YaRN's original 16


def published(model, directory):
    """Save ours, open as theirs; also what transformers says about missing and unexpected tensors."""
    save_model(model, directory, bos_id=0, eos_id=1, pad_id=2)
    return transformers.AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )


def our_logits(model, tokens):
    return model.logits(model(tokens, torch.ones_like(tokens), depth=0).states)


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_gives_the_same_logits(name, tmp_path):
    model = tiny_model(CONFIGS[name])
    theirs, report = published(model, tmp_path)
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    mtp = [key for key in report["unexpected_keys"] if key.startswith("model.layers.3.")]
    assert len(mtp) == len(report["unexpected_keys"])
    assert bool(mtp) == bool(CONFIGS[name].num_mtp_layers)

    tokens = some_tokens(CONFIGS[name], rows=3, length=LENGTH)
    with torch.no_grad():
        ours, expected = our_logits(model, tokens), theirs(tokens).logits
    difference = (ours - expected).abs().max().item()
    print(f"max difference {difference:.1e}")
    assert expected.abs().max() > 1
    assert difference <= TOLERANCE


@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_gives_the_same_gradients(name, tmp_path):
    config = CONFIGS[name]
    model = tiny_model(config)
    theirs, _ = published(model, tmp_path)
    tokens = some_tokens(config, rows=2, length=LENGTH)

    def loss(logits):
        return F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    loss(our_logits(model, tokens)).backward()
    loss(theirs(tokens).logits).backward()
    ours = gradients_by_published_name(model)
    worst = 0.0
    for key, parameter in theirs.named_parameters():
        scale = parameter.grad.abs().max().item() + 1e-3
        worst = max(worst, (ours[key] - parameter.grad).abs().max().item() / scale)
    print(f"max relative difference {worst:.1e}")
    assert worst <= TOLERANCE


def gradients_by_published_name(model):
    """Our gradients under transformers' names, which stacks experts as we do."""
    parameters = dict(model.named_parameters())
    found = {
        piece.published: piece.of(parameters[piece.ours].grad)
        for piece in pieces_of(model.config)
        if piece.ours in parameters and parameters[piece.ours].grad is not None
    }
    for number, layer in enumerate(model.layers):
        for ours, theirs in (("gate_up", "gate_up_proj"), ("down", "down_proj")):
            if isinstance(stacked := getattr(layer.feed_forward, ours), torch.nn.Parameter):
                found[f"model.layers.{number}.mlp.experts.{theirs}"] = stacked.grad
    return found


@pytest.mark.parametrize("name", CONFIGS)
def test_what_transformers_saves_opens_here(name, tmp_path):
    """Their own layout (rope_parameters, sharded, an MTP count without MTP tensors) gives the same logits."""
    model = tiny_model(CONFIGS[name])
    theirs, _ = published(model, tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size="20kB")
    assert "rope_parameters" in json.loads((tmp_path / "theirs" / "config.json").read_text())

    back = load_model(tmp_path / "theirs")
    assert back.config.num_mtp_layers == 0
    tokens = some_tokens(CONFIGS[name], rows=1, length=LENGTH)
    with torch.no_grad():
        assert torch.equal(our_logits(back, tokens), our_logits(model, tokens))


def test_transformers_predicts_the_same_second_token(tmp_path):
    """The multi-token module, at the position that transformers drafts from."""
    from transformers.cache_utils import MtpCache
    from transformers.modeling_layers import MtpModel

    config = CONFIGS["deepseek_v3 mtp"]
    model = tiny_model(config)
    theirs, _ = published(model, tmp_path)
    # transformers looks for the module where DeepSeek's own 61-layer checkpoint has it
    theirs._keys_to_ignore_on_load_unexpected = [r"model\.layers\.3\."]
    drafter = MtpModel.from_pretrained(theirs)
    tokens = some_tokens(config, rows=2, length=LENGTH)
    with torch.no_grad():
        states = theirs(tokens, output_hidden_states=True).hidden_states[-1]
        _, drafted, _ = drafter(
            input_ids=tokens[:, 1:],
            last_hidden_states=states[:, :-1],
            attention_mask=None,
            position_ids=torch.arange(1, LENGTH)[None],
            mtp_cache=MtpCache(config=theirs.config.get_mtp_config()),
        )
        hidden = model(tokens, torch.ones_like(tokens), depth=1)
        ours = model.logits(hidden.predicted_states[0][:, -2])
    difference = (ours - drafted[:, 0]).abs().max().item()
    print(f"max difference {difference:.1e}")
    assert difference <= TOLERANCE


def test_transformers_generates_from_a_bfloat16_checkpoint(tmp_path):
    model = tiny_model(CONFIGS["deepseek_v3 tied"])
    save_model(model, tmp_path, bos_id=0, eos_id=1, pad_id=2, dtype=torch.bfloat16)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == torch.bfloat16
    assert theirs.generation_config.eos_token_id == 1
    prompt = some_tokens(model.config, rows=1, length=4)
    assert theirs.generate(prompt, max_new_tokens=3, do_sample=False).shape[1] <= 7
