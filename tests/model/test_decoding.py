"""Decoding from a cache, packing and padding change how a token is computed, never what comes out."""

import math

import pytest
import torch

from clearseek.config.model import ModelConfig, RopeScaling
from clearseek.model.rotary import (
    inverse_frequencies,
    rotary_table,
    rotate_halves,
    rotate_pairs,
    softmax_scale,
)
from tests.model.tiny import CONFIGS, FAMILY_CONFIGS, LATENT, some_tokens, tiny_model

EVERY = CONFIGS | FAMILY_CONFIGS

TOLERANCE = 1e-5


def full_logits(model, tokens, segments=None):
    segments = torch.ones_like(tokens) if segments is None else segments
    return model.logits(model(tokens, segments, depth=0).states)


def decoded_logits(model, tokens, prompt_lengths, cache_length):
    """Logits [B, T, V] as an engine gets them: prompts prefilled together, then one token a step.

    Of a prompt only the last token, which is fed again, has any.
    """
    longest = max(prompt_lengths)
    lengths = torch.tensor(prompt_lengths)
    prompts = tokens[:, :longest].masked_fill(torch.arange(longest) >= lengths[:, None], 2)
    entries = model.prefill(prompts, torch.float32)
    sizes = [[entry.shape[-1] for entry in layer] for layer in entries]
    assert [list(layer.attention.cache_sizes) for layer in model.layers] == sizes
    caches = [tuple(torch.full((len(tokens), cache_length, size), 7.0) for size in layer) for layer in sizes]
    for cache, layer in zip(caches, entries, strict=True):
        for kept, entry in zip(cache, layer, strict=True):
            kept[:, :longest] = entry
    logits = torch.zeros(*tokens.shape, model.config.vocab_size)
    for step in range(tokens.shape[1] - min(prompt_lengths) + 1):
        where = (lengths - 1 + step).clamp(
            max=tokens.shape[1] - 1
        )  # a finished row decodes its last token again
        now = tokens.gather(1, where[:, None])[:, 0]
        logits[torch.arange(len(tokens)), where] = model.logits(
            model.decode(now[:, None], where[:, None], caches, torch.float32)[:, 0]
        )
    return logits


@pytest.mark.parametrize("name", EVERY)
def test_decoding_from_the_cache_equals_the_full_pass(name):
    """Absorbed latent attention equals the expanded form; rows of different lengths share the batch."""
    model = tiny_model(EVERY[name])
    tokens = some_tokens(model.config, rows=3, length=24)
    with torch.no_grad():
        expected = full_logits(model, tokens)
        found = decoded_logits(model, tokens, prompt_lengths=[5, 9, 1], cache_length=30)
    decoded = torch.arange(24) >= torch.tensor([5, 9, 1])[:, None] - 1
    assert (found - expected)[decoded].abs().max() <= TOLERANCE * expected.abs().max()


@pytest.mark.parametrize("name", EVERY)
def test_a_document_does_not_see_its_neighbours_in_a_packed_row(name):
    """Every document of a row gives the logits it gives alone; rotary only sees distances."""
    model = tiny_model(EVERY[name])
    tokens = some_tokens(model.config, rows=1, length=24)
    segments = torch.tensor([[1] * 7 + [2] * 10 + [3] * 4 + [0] * 3])
    with torch.no_grad():
        packed = full_logits(model, tokens, segments)
        for start, end in ((0, 7), (7, 17), (17, 21)):
            alone = full_logits(model, tokens[:, start:end])
            assert (packed[:, start:end] - alone).abs().max() <= 2 * TOLERANCE * alone.abs().max()


@pytest.mark.parametrize("name", EVERY)
def test_completions_that_share_a_prompt_are_as_if_each_had_its_own(name):
    """Windows, sinks and positions count through the prompt, whatever stands between."""
    model = tiny_model(EVERY[name])
    tokens = some_tokens(model.config, rows=1, length=20)
    segments = torch.tensor([[1] * 8 + [2] * 5 + [3] * 7])
    parents = torch.tensor([[1] * 20])
    with torch.no_grad():
        packed = model.logits(model(tokens, segments, depth=0, parents=parents).states)
        for start, end in ((8, 13), (13, 20)):
            alone = full_logits(model, torch.cat((tokens[:, :8], tokens[:, start:end]), dim=1))[:, 8:]
            assert (packed[:, start:end] - alone).abs().max() <= 2 * TOLERANCE * alone.abs().max()


@pytest.mark.parametrize("name", EVERY)
def test_padding_and_other_rows_change_nothing(name):
    model = tiny_model(EVERY[name])
    tokens = some_tokens(model.config, rows=2, length=12)
    wide = torch.full((3, 20), 2)
    wide[:2, :12] = tokens
    with torch.no_grad():
        alone = full_logits(model, tokens)
        padded = full_logits(model, wide, (torch.arange(20) < 12).int().expand(3, -1))
    assert torch.isfinite(padded).all()
    assert (padded[:2, :12] - alone).abs().max() <= TOLERANCE * alone.abs().max()


def test_later_tokens_change_nothing():
    for name in ("deepseek_v3 mtp", "qwen3"):
        model = tiny_model(CONFIGS[name])
        tokens = some_tokens(model.config, rows=1, length=12)
        other = torch.cat((tokens[:, :8], tokens[:, 8:].flip(1)), dim=1)
        with torch.no_grad():
            assert torch.equal(full_logits(model, tokens)[:, :8], full_logits(model, other)[:, :8])


# Multi-token prediction


def test_multi_token_states_of_a_document_do_not_depend_on_its_neighbours():
    """At depth k the last k tokens of a document have nothing to predict from; all others stand alone."""
    model = tiny_model(ModelConfig(**LATENT, num_mtp_layers=2))
    tokens = some_tokens(model.config, rows=1, length=24)
    segments = torch.tensor([[1] * 9 + [2] * 12 + [0] * 3])
    with torch.no_grad():
        packed = model(tokens, segments, depth=2)
        alone = model(tokens[:, 9:21], torch.ones(1, 12, dtype=torch.int), depth=2)
    for depth, (ours, expected) in enumerate(
        zip(packed.predicted_states, alone.predicted_states, strict=True), start=1
    ):
        difference = (ours[:, 9 : 21 - depth] - expected[:, :-depth]).abs().max()
        assert difference <= 2 * TOLERANCE * expected.abs().max()
    for ours, expected in zip(packed.loads[-2:], (11, 10), strict=True):
        counted = ours.tokens_per_expert.sum() / model.config.num_experts_per_token
        assert counted == expected + expected - 3


def test_multi_token_modules_run_in_training_only_unless_asked():
    model = tiny_model(CONFIGS["deepseek_v3 mtp"])
    tokens = some_tokens(model.config, rows=1, length=8)
    assert len(model(tokens, torch.ones_like(tokens)).predicted_states) == 1
    assert len(model(tokens, torch.ones_like(tokens), depth=0).predicted_states) == 0
    assert len(model.eval()(tokens, torch.ones_like(tokens)).predicted_states) == 0
    assert len(model(tokens, torch.ones_like(tokens), depth=1).predicted_states) == 1


# Rotary


def test_rotary_turns_pairs_by_their_angle():
    """Against complex multiplication, in both layouts."""
    generator = torch.Generator().manual_seed(0)
    x, angles = torch.randn(5, 8, generator=generator), 3 * torch.randn(5, 4, generator=generator)
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.polar(torch.ones(5, 4), angles)
    expected = torch.view_as_real(turned).flatten(-2)
    torch.testing.assert_close(rotate_pairs(x, angles.cos(), angles.sin()), expected)
    halves = x.unflatten(-1, (4, 2)).transpose(-1, -2).flatten(-2)
    expected = expected.unflatten(-1, (4, 2)).transpose(-1, -2).flatten(-2)
    torch.testing.assert_close(rotate_halves(halves, angles.cos(), angles.sin()), expected)


def test_yarn_stretches_slow_turns_and_leaves_fast_ones():
    """DeepSeek-V3's own figures: rotary size 64, base 10,000, 4,096 → 163,840 positions."""
    yarn = RopeScaling(factor=40, original_max_position_embeddings=4096)
    plain = ModelConfig(**LATENT | {"qk_rope_head_dim": 64})
    scaled = plain.model_copy(update={"rope_scaling": yarn})
    before, after = inverse_frequencies(plain), inverse_frequencies(scaled)
    turns = 4096 * before / (2 * math.pi)
    assert torch.equal(after[turns > 36], before[turns > 36])  # β_fast 32, rounded down to a whole pair
    torch.testing.assert_close(after[turns < 0.8], before[turns < 0.8] / 40)
    between = (after / before)[(turns < 30) & (turns > 1.2)]
    assert ((between > 1 / 40) & (between < 1)).all()
    assert (between.diff() < 0).all()
    assert softmax_scale(scaled) / softmax_scale(plain) == pytest.approx((0.1 * math.log(40) + 1) ** 2)
    torch.testing.assert_close(rotary_table(scaled, 8).norm(dim=0), torch.ones(8, 32))


def test_yarn_of_grouped_query_attention_scales_the_rotation_itself():
    table = rotary_table(CONFIGS["qwen3 yarn"], 8)
    torch.testing.assert_close(table.norm(dim=0), torch.full((8, 4), 0.1 * math.log(4) + 1))
    assert softmax_scale(CONFIGS["qwen3 yarn"]) == 8**-0.5


def test_a_model_that_has_sampled_can_be_trained():
    """The rotary table grows on demand, also while gradients are off, and serves training afterwards."""
    model = tiny_model(CONFIGS["deepseek_v3"])
    tokens = some_tokens(model.config, rows=1, length=300)
    with torch.inference_mode():
        model.prefill(tokens, torch.float32)
    full_logits(model, tokens).sum().backward()
    assert model.embedding.weight.grad is not None
