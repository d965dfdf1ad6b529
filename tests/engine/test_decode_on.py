"""Several tokens in one call against a token a step: the same samples to the last bit, ends and budgets included."""

from dataclasses import astuple

import pytest

from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.slots import Slots
from clearseek.model.kernels import library
from tests.model.kernel_inputs import BF16, lane_sized

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=f"no kernels: {library.why_not()}")
NEVER = ()  # no token ends a completion


def a_token_a_step(engine, requests):
    """Somebody listens, so every token comes back to Python."""
    return engine.generate(requests, lambda *_: None)


def requests_of(**sampling):
    """Prompts and budgets of several lengths, the longest beyond what one call may draw."""
    return [
        Request(tuple(range(2, 3 + n)), 100 + n, 5, Sampling(**{"max_tokens": budget} | sampling))
        for n, budget in enumerate([1, 7, 30, 150])
    ]


def first_part(tokens, ends):
    """Up to the first end, with it."""
    places = [place for place, token in enumerate(tokens) if token in ends]
    return tokens[: places[0] + 1] if places else tokens


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
    engine.stop_ids = frozenset({free[3][0].tokens[70], free[3][1].tokens[90], 10**6})
    ended = engine.generate(requests)
    assert flat(ended) == flat(a_token_a_step(engine, requests))
    assert {c.finish_reason for group in ended for c in group} == {"stop", "length"}
    for group, unended in zip(ended, free, strict=True):
        for ours, whole in zip(group, unended, strict=True):
            assert ours.tokens == first_part(whole.tokens, engine.stop_ids)
            assert (ours.finish_reason == "stop") == (ours.tokens[-1] in engine.stop_ids)


@pytest.mark.parametrize(
    ("sampling", "is_taken"), [({}, True), ({"temperature": 0.0}, False), ({"top_p": 0.9}, False)]
)
def test_only_plain_sampling_decodes_on(monkeypatch, sampling, is_taken):
    calls, decode_on = [], Slots.decode_on
    monkeypatch.setattr(Slots, "decode_on", lambda *given: calls.append(1) or decode_on(*given))
    engine, requests = Engine(lane_sized("qwen3"), NEVER, BF16), requests_of(**sampling)
    assert flat(engine.generate(requests)) == flat(a_token_a_step(engine, requests))
    assert bool(calls) == is_taken
