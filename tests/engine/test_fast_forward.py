"""Tokens that must come next are read in one step, and are what they are one by one."""

import numpy as np
import pytest
import torch

from clearseek.config.model import ModelConfig
from clearseek.engine import constraint, stepper
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.speculation import Speculation
from clearseek.model.kernels import library
from clearseek.text.tokenizer import Tokenizer
from tests.engine.finishing import finished
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import GROUPED, tiny_model

pytest.importorskip("llguidance")

TOKENIZER = Tokenizer.train(("12 + 5 = 17. Let me check: it's 17.", "그러므로 답은 17입니다.") * 20, 400)
TEXTS = [f"a quick brown fox jumps over the lazy dog and says {word}" for word in ("seventeen", "eighteen")]
SCHEMA = {
    "type": "object",
    "properties": {"a_rather_long_name": {"type": "boolean"}, "another_long_name": {"enum": ["x", "y"]}},
    "required": ["a_rather_long_name", "another_long_name"],
    "additionalProperties": False,
}
KERNELS = pytest.param("kernels", marks=pytest.mark.skipif(bool(library.why_not()), reason="no kernels here"))


def model_of(name):
    changes = {"vocab_size": TOKENIZER.vocab_size, "max_position_embeddings": 512}
    if name == "kernels":
        return lane_sized("qwen3", **changes).requires_grad_(False)
    return tiny_model(ModelConfig(**{"family": "qwen3", **GROUPED} | changes)).requires_grad_(False)


def requests(most=160):
    """Two that are held to something, one whose thought is cut off, one that is free."""
    held = [constraint.choice(TEXTS, False, True), constraint.json_schema(SCHEMA, False, True)]
    settings = [{"constraint": one} for one in held] + [{"thinking_budget": 3}, {"ignore_eos": True}]
    prompt = (*TOKENIZER.encode_plain("12 + 5?"), TOKENIZER.think_start_id)
    return [
        Request(prompt, number, 2, Sampling(max_tokens=most, **own)) for number, own in enumerate(settings)
    ]


def answered(name, asked, speculation=None, **settings):
    """What came of it, how many steps it took, and the engine; blocks are counted after each."""
    engine = Engine(
        model_of(name), TOKENIZER.stop_ids, torch.float32, tokenizer=TOKENIZER, speculation=speculation, **settings
    )  # fmt: skip
    answers, steps = [engine.submit(request) for request in asked], 0
    advance = engine.step

    def counted(*arguments):
        nonlocal steps
        steps += 1
        return advance(*arguments)

    engine.step = counted
    found = finished(engine)
    assert engine.pool.num_free == engine.pool.num_blocks
    return [found[answer] for group in answers for answer in group], steps, engine


@pytest.mark.parametrize("name", [KERNELS, "plain"])
@pytest.mark.parametrize("speculation", [None, Speculation("ngram", 2)], ids=["alone", "beside guesses"])
def test_read_at_once_they_are_what_they_are_one_by_one(monkeypatch, name, speculation):
    at_once, _, _ = answered(name, requests(), speculation)
    monkeypatch.setattr(stepper, "_MOST_FORCED", 0)
    one_by_one, _, _ = answered(name, requests(), speculation)
    for ours, theirs in zip(at_once, one_by_one, strict=True):
        assert (ours.tokens, ours.forced, ours.text) == (theirs.tokens, theirs.forced, theirs.text)
        assert (ours.finish_reason, ours.error) == (theirs.finish_reason, None)
        if name == "kernels":
            assert (ours.log_probs, ours.entropy) == (theirs.log_probs, theirs.entropy)
        np.testing.assert_allclose(ours.log_probs, theirs.log_probs, atol=1e-4)
    assert {one.text for one in at_once[:2]} <= set(TEXTS)
    assert all(len(one.forced) > 20 for one in at_once[:4])


@pytest.mark.parametrize("name", [KERNELS, "plain"])
def test_they_save_steps(monkeypatch, name):
    asked = requests()[:1]
    (answer, _), steps, engine = answered(name, asked)
    assert steps <= len(answer.tokens) - len(answer.forced) + 4
    assert engine.acceptance.guessed == []  # nobody guessed
    monkeypatch.setattr(stepper, "_MOST_FORCED", 0)
    _, slow, _ = answered(name, asked)
    assert slow >= len(answer.tokens)


@pytest.mark.parametrize("most", [1, 2, 7, 30])
def test_a_budget_ends_among_them(most):
    (whole, *_), _, _ = answered("plain", requests()[:1])
    found, _, _ = answered("plain", requests(most)[:1])
    for one in found:
        assert len(one.tokens) <= most
        assert one.tokens[: most - 1] == whole.tokens[: most - 1]
        assert one.finish_reason == "length"


def test_where_the_cache_is_full_they_come_all_the_same(monkeypatch):
    """Blocks are few, so answers are paused among forced tokens and go on where they were."""
    wanted, _, _ = answered("plain", requests()[:2])
    monkeypatch.setattr(Engine, "_most_blocks", lambda self: 3)
    found, _, engine = answered("plain", requests()[:2])
    assert engine.scheduler.num_paused > 0
    assert [(one.tokens, one.forced) for one in found] == [(one.tokens, one.forced) for one in wanted]
