"""Answers that have to be over in time: what is late ends with what there is of it, and nobody else notices."""

import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from tests.engine.finishing import finished
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, some_tokens, tiny_model

SHAPES = {
    "with kernels": lambda: lane_sized("qwen3", max_position_embeddings=1024),
    "without kernels": lambda: tiny_model(CONFIGS["qwen3"]),
}


class Clock:
    """Shows what a test sets."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def engine_of(name, **settings):
    clock = Clock()
    return Engine(SHAPES[name]().requires_grad_(False), (), torch.float32, clock=clock, **settings), clock


def request_of(engine, seed, deadline=None, length=100, most=200):
    prompt = tuple(some_tokens(engine.model.config, 1, length, seed)[0].tolist())
    return Request(prompt, seed, 1, Sampling(max_tokens=most), deadline_seconds=deadline)


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_late_ends_with_what_there_is_of_it_and_others_go_on(name):
    engine, clock = engine_of(name, num_slots=2)
    wanted = engine.generate([request_of(engine, seed) for seed in range(3)])
    (late,), (punctual,), (waiting,) = (
        engine.submit(request_of(engine, seed, deadline)) for seed, deadline in enumerate((5.0, None, 5.0))
    )
    engine.step()
    engine.step()
    clock.now += 4.9
    assert engine.step() == []
    clock.now += 0.1
    ended = dict(engine.step())
    assert set(ended) == {late, waiting}
    assert {completion.finish_reason for completion in ended.values()} == {"deadline"}
    assert ended[waiting].tokens == []
    tokens, log_probs = ended[late].tokens, ended[late].log_probs
    assert 0 < len(tokens) == len(log_probs) < 200
    assert tokens == wanted[0][0].tokens[: len(tokens)]
    assert not engine.holds(late)
    assert finished(engine)[punctual].tokens == wanted[1][0].tokens
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("name", SHAPES)
def test_a_prompt_is_not_read_to_its_end_once_it_is_late(name):
    engine, clock = engine_of(name, step_tokens=32)
    (answer,) = engine.submit(request_of(engine, 0, 1.0))
    engine.step()
    clock.now += 1
    ((found, completion),) = engine.step()
    assert (found, completion.finish_reason, completion.tokens) == (answer, "deadline", [])
    assert engine.is_idle
    assert engine.pool.num_free == engine.pool.num_blocks


def test_in_time_is_as_without_a_deadline():
    engine, clock = engine_of("with kernels")
    (wanted,) = engine.generate([request_of(engine, 1)])
    assert engine.generate([request_of(engine, 1, 1.0)]) == [wanted]
    clock.now += 5
    assert engine.generate([request_of(engine, 1, 1.0)]) == [wanted]
    assert not engine.deadlines


def test_a_deadline_is_looked_at_within_few_tokens():
    """The kernels decode many tokens in one call, fewer where somebody is waited for."""
    engine, clock = engine_of("with kernels")
    (answer,) = engine.submit(request_of(engine, 1, 1.0))
    while not engine.slots.num_sampled.any():
        engine.step()
    before = engine.slots.num_sampled.max()
    engine.step()
    assert engine.slots.num_sampled.max() - before <= 8
    clock.now += 1
    ((found, _),) = engine.step()
    assert found is answer


def test_every_sample_of_a_group_is_late_by_itself():
    engine, clock = engine_of("with kernels", num_slots=2)
    clock.now = 0
    request = request_of(engine, 1, 1.0, most=20)
    answers = engine.submit(Request(request.prompt, 1, 5, request.sampling, deadline_seconds=1.0))
    ended = dict(engine.step())
    while len(ended) < 2:
        ended |= dict(engine.step())
    clock.now += 1
    ended |= dict(engine.step())
    reasons = [ended[answer].finish_reason for answer in answers]
    assert reasons == ["length"] * 2 + ["deadline"] * 3
