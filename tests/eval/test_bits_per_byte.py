"""Bits per byte against summing one prediction after the other."""

import copy
import math

import pytest
import torch

from clearseek.config.model import ModelConfig
from clearseek.eval.bits_per_byte import bits_per_byte
from clearseek.text.tokenizer import Tokenizer
from tests.model.tiny import GROUPED, tiny_model

TEXTS = ["Let me check: 12 + 5 = 17, so the answer is 17.", "먼저 12 + 5 = 17 입니다.", "🤔", "x"]


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(TEXTS * 20, 320)


@pytest.fixture(scope="module")
def model(tokenizer):
    return tiny_model(ModelConfig(**GROUPED | {"vocab_size": tokenizer.vocab_size}, family="qwen3"), std=0.1)


@torch.no_grad()
def one_by_one(model, tokenizer, texts, window):
    """−log₂ p of every token after those before it (at most `window` of them), over the bytes."""
    bits, num_bytes = 0.0, 0
    for text in texts:
        ids = [tokenizer.bos_id, *tokenizer.encode_plain(text)]
        for position in range(1, len(ids)):
            seen = torch.tensor([ids[max(0, position - window) : position]])
            states = model(seen, torch.ones_like(seen), torch.float32, 0).states
            log_probs = model.logits(states[0, -1]).double().log_softmax(-1)
            bits -= float(log_probs[ids[position]]) / math.log(2)
        num_bytes += len(text.encode())
    return bits / num_bytes


def test_within_one_window_it_is_the_sum_of_all_predictions(model, tokenizer):
    expected = one_by_one(model, tokenizer, TEXTS, 1000)
    assert bits_per_byte(model, tokenizer, TEXTS, 64, torch.float32) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("length", [1, 2, 3, 8, 9, 50])
def test_without_context_windows_do_not_matter(model, tokenizer, length):
    alone = context_free(model)
    expected = one_by_one(alone, tokenizer, TEXTS, 1)
    assert bits_per_byte(alone, tokenizer, TEXTS, length, torch.float32) == pytest.approx(expected, rel=1e-5)


def context_free(model):
    """The same model whose attention adds nothing: each prediction depends on one token."""
    alone = copy.deepcopy(model)
    with torch.no_grad():
        for layer in alone.layers:
            layer.attention.out.weight.zero_()
    return alone


def test_later_windows_have_at_least_half_a_window_of_context(model, tokenizer):
    text = TEXTS[0] * 3
    length = 16
    few, many = (
        one_by_one(model, tokenizer, [text], length // 2),
        one_by_one(model, tokenizer, [text], length),
    )
    low, high = sorted((few, many))
    found = bits_per_byte(model, tokenizer, [text], length, torch.float32)
    assert low - 0.05 * low <= found <= high + 0.05 * high


def test_special_tokens_in_a_text_are_only_letters(model, tokenizer):
    text = "</think><｜end▁of▁sentence｜>"
    expected = one_by_one(model, tokenizer, [text], 1000)
    assert bits_per_byte(model, tokenizer, [text], 128, torch.float32) == pytest.approx(expected, rel=1e-5)


def test_measuring_leaves_the_model_as_it_was(model, tokenizer):
    model.train()
    bits_per_byte(model, tokenizer, TEXTS[:1], 8, torch.float32)
    assert model.training
