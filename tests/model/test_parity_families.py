"""Every family that transformers knows, at three shapes: the same logits, tokens and gradients as its own code.

Theirs is built from the published config with random weights and saved; ours opens that, and theirs opens what
ours saves. Run where transformers is (`make peers`); skipped elsewhere.
"""

import json

import pytest
import torch
import torch.nn.functional as F

from clearseek.model.checkpoint import load_model, save_model
from clearseek.model.families import pieces_of
from tests.model.published import REDUCED, SHAPES, config_json

transformers = pytest.importorskip("transformers")

TOLERANCE = 1e-4
LENGTH = 40  # beyond the first context of 16 and every window
NEW_TOKENS = 64
COMPARED = [(architecture, shape) for architecture, shape in SHAPES if architecture not in REDUCED]


@pytest.fixture(params=COMPARED, ids=lambda row: f"{row[0]}-{row[1]}")
def pair(request, tmp_path):
    """Theirs with random weights, and ours opened from what theirs saved."""
    torch.manual_seed(0)
    theirs = their_model(config_json(*request.param), tmp_path)
    theirs.save_pretrained(tmp_path / "theirs")
    return theirs, load_model(tmp_path / "theirs")


def their_model(published, directory):
    """The model that transformers makes of a config.json, in fp32, with weights so large that a wrong turn shows."""
    (directory / "config").mkdir()
    (directory / "config" / "config.json").write_text(json.dumps(published))
    config = transformers.AutoConfig.from_pretrained(directory / "config")
    config._attn_implementation = config._experts_implementation = "eager"
    model = getattr(transformers, published["architectures"][0])(config).float()
    with torch.no_grad():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            if "inv_freq" in name or not tensor.is_floating_point():
                continue
            noise = torch.randn_like(tensor)
            is_norm = "norm" in name and name.endswith("weight")
            tensor.copy_(1 + 0.3 * noise if is_norm else 0.2 * noise)
    return model.eval()


def our_logits(model, tokens):
    return model.logits(model(tokens, torch.ones_like(tokens), depth=0).states)


def some_tokens(model, rows):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(3, model.config.vocab_size, (rows, LENGTH), generator=generator)


def test_logits_and_gradients_are_the_same(pair):
    theirs, ours = pair
    tokens = some_tokens(ours, rows=2)
    expected, logits = theirs(tokens).logits, our_logits(ours, tokens)
    assert expected.abs().max() > 1
    difference = (logits - expected).abs().max().item()
    print(f"max difference of logits {difference:.1e}")
    assert difference <= TOLERANCE

    for scores in (logits, expected):
        F.cross_entropy(scores[:, :-1].flatten(0, 1), tokens[:, 1:].flatten()).backward()
    worst = compare_gradients(ours, theirs)
    print(f"max relative difference of gradients {worst:.1e}")
    assert worst <= TOLERANCE


def compare_gradients(ours, theirs):
    """The largest difference, relative to the largest entry of its tensor, over all of transformers' parameters."""
    mine, compared, worst = gradients_by_published_name(ours), 0, 0.0
    for name, parameter in theirs.named_parameters():
        if parameter.grad is None:
            assert mine.get(name) is None or not mine[name].any()
            continue
        found = mine[name]
        scale = parameter.grad.abs().max().item() + 1e-3
        worst = max(worst, (found.reshape(parameter.shape) - parameter.grad).abs().max().item() / scale)
        compared += 1
    assert compared > 5
    return worst


# published name, in a checkpoint → in transformers' module
IN_MEMORY = (
    (".block_sparse_moe.", ".mlp."),
    (".mlp.router.gate.", ".mlp.gate."),
    (".mlp.shared_mlp.", ".mlp.shared_experts."),
    (".attention_sink_bias", ".sinks"),
)


def gradients_by_published_name(model):
    """Our gradients under the names of transformers' modules, which stack experts as we do."""
    parameters = dict(model.named_parameters())
    found = {}
    for piece in pieces_of(model.config):
        parameter = parameters.get(piece.ours)
        if parameter is None or parameter.grad is None:
            continue
        name, view = piece.published, piece.of(parameter.grad)
        found[name] = view.reshape(piece.published_shape(view))
        for published, theirs in IN_MEMORY:
            found[name.replace(published, theirs)] = found[name]
    for number, layer in enumerate(model.layers):
        for ours, theirs in (("gate_up", "gate_up_proj"), ("down", "down_proj")):
            name = f"model.layers.{number}.mlp.experts.{theirs}"
            if isinstance(stacked := getattr(layer.feed_forward, ours), torch.nn.Parameter):
                found.setdefault(name, stacked.grad)
    return found


def test_greedy_tokens_are_the_same(pair):
    theirs, ours = pair
    tokens = some_tokens(ours, rows=1)[:, :5]
    theirs.generation_config.eos_token_id = None  # random weights may end an answer
    expected = theirs.generate(tokens, max_new_tokens=NEW_TOKENS, do_sample=False)
    assert torch.equal(greedy(ours, tokens), expected)


@torch.no_grad()
def greedy(model, tokens):
    """The most likely tokens, one after the other, by prefill and decoding with a cache."""
    length = tokens.shape[1] + NEW_TOKENS
    caches = [
        tuple(torch.zeros(1, length, size) for size in layer.attention.cache_sizes) for layer in model.layers
    ]
    for cache, entries in zip(caches, model.prefill(tokens, torch.float32), strict=True):
        for kept, entry in zip(cache, entries, strict=True):
            kept[:, : tokens.shape[1] - 1] = entry[:, :-1]
    while tokens.shape[1] < length:
        where = torch.tensor([[tokens.shape[1] - 1]])
        states = model.decode(tokens[:, -1:], where, caches, torch.float32)
        tokens = torch.cat((tokens, model.logits(states).argmax(-1)), dim=1)
    return tokens


def test_transformers_opens_what_we_save(pair, tmp_path):
    theirs, ours = pair
    save_model(ours, tmp_path / "ours", bos_id=None, eos_id=None, pad_id=None)
    again, report = type(theirs).from_pretrained(
        tmp_path / "ours",
        dtype=torch.float32,
        attn_implementation="eager",
        experts_implementation="eager",
        output_loading_info=True,
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = some_tokens(ours, rows=1)
    with torch.no_grad():
        assert (again.eval()(tokens).logits - theirs(tokens).logits).abs().max() <= TOLERANCE
