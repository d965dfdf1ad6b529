"""Several tokens in one call against a token a step: the same samples to the last bit, ends and budgets included."""

from dataclasses import astuple

import pytest

from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.slots import Slots
from clearseek.model.kernels import library
from tests.model.kernel_inputs import BF16, lane_sized

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=f"no kernels: {library.why_not()}")
NEVER = -1  # an end-of-sentence id that is never drawn


def a_token_a_step(engine, requests):
    """Somebody listens, so every token comes back to Python."""
    return engine.generate(requests, lambda *_: None)


def requests_of(**sampling):
    """Prompts and budgets of several lengths, the longest beyond what one call may draw."""
    return [
        Request(tuple(range(2, 3 + n)), 100 + n, 5, Sampling(**{"max_tokens": budget} | sampling))
        for n, budget in enumerate([1, 7, 30, 150])
    ]


def flat(groups):
    return [astuple(completion) for group in groups for completion in group]


@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3", "deepseek_v3 many experts"])
@pytest.mark.parametrize("num_slots", [1, 6, 64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_samples_are_those_of_a_token_a_step(name, num_slots, temperature):
    engine = Engine(lane_sized(name), NEVER, BF16, num_slots)
    requests = requests_of(temperature=temperature)
    free = engine.generate(requests)
    assert flat(free) == flat(a_token_a_step(engine, requests))
    assert [len(c.tokens) for c in free[3]] == [150] * 5
    engine.eos_id = free[3][0].tokens[70]
    ended = engine.generate(requests)
    assert flat(ended) == flat(a_token_a_step(engine, requests))
    assert {c.finish_reason for group in ended for c in group} == {"stop", "length"}


@pytest.mark.parametrize(
    ("sampling", "is_taken"), [({}, True), ({"temperature": 0.0}, False), ({"top_p": 0.9}, False)]
)
def test_only_plain_sampling_decodes_on(monkeypatch, sampling, is_taken):
    calls, decode_on = [], Slots.decode_on
    monkeypatch.setattr(Slots, "decode_on", lambda *given: calls.append(1) or decode_on(*given))
    engine, requests = Engine(lane_sized("qwen3"), NEVER, BF16), requests_of(**sampling)
    assert flat(engine.generate(requests)) == flat(a_token_a_step(engine, requests))
    assert bool(calls) == is_taken
