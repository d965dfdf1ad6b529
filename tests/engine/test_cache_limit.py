"""How much memory the cache takes: what a block is in truth, and the bound that follows from what is free."""

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine import cache_limit
from clearseek.engine import engine as engine_module
from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.engine import Engine
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.plain_runner import PlainRunner
from clearseek.engine.request import Request, Sampling
from clearseek.engine.speculation import Speculation
from tests.engine.finishing import finished
from tests.engine.test_scheduling import requests_of
from tests.engine.test_speculation import engine_of as speculating
from tests.engine.test_speculation import model_of
from tests.model.tiny import CONFIGS, tiny_model

GIB = 1 << 30


def held_bytes(engine):
    """What all caches of an engine take."""
    runners = list(engine._runners)
    runners += [runner._further for runner in runners if isinstance(runner, FusedRunner) and runner._further]
    return sum(blocks.nbytes for runner in runners for cache in runner.caches for blocks in cache)


@pytest.mark.parametrize("kind", [None, "mtp", "ngram", "draft"])
@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3", "plain"])
def test_a_block_is_counted_in_every_cache_that_has_it(name, kind):
    if name == "qwen3" and kind == "mtp":
        pytest.skip("it has no module")
    engine = speculating(model_of(name), kind)
    engine.generate([Request((1, 2, 3), 0, sampling=Sampling(max_tokens=100))])
    assert held_bytes(engine) == engine.pool.num_blocks * engine.cache_limit.block_bytes


def limit_of(monkeypatch, free, **settings):
    monkeypatch.setattr(cache_limit, "available_memory_bytes", lambda: free)
    return Engine(model_of("qwen3"), (), torch.float32, **settings).cache_limit


def test_the_bound_is_half_of_what_is_free_beside_the_weights(monkeypatch):
    weights = 4 * sum(parameter.numel() for parameter in model_of("qwen3").parameters())
    many = {"num_slots": 1 << 30}
    assert limit_of(monkeypatch, 3 * GIB, **many).num_bytes == (3 * GIB - weights) // 2
    assert limit_of(monkeypatch, None, **many).num_bytes == 4 * GIB
    assert limit_of(monkeypatch, 0, **many).num_bytes == 256 << 20
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert limit_of(monkeypatch, 3 * GIB, **many).num_bytes == (GIB - weights) // 2


def test_no_more_than_all_slots_could_use(monkeypatch):
    limit = limit_of(monkeypatch, 1000 * GIB, num_slots=3)
    assert limit.num_blocks == 3 * 1024 // BLOCK_TOKENS
    assert (
        limit_of(monkeypatch, 1000 * GIB, num_slots=3, cache_bytes=900 * GIB).num_blocks == limit.num_blocks
    )


def test_on_cuda_it_is_the_device_s_memory_that_counts(monkeypatch):
    told = {"mem_get_info": (7 * GIB, 80 * GIB), "memory_reserved": 5 * GIB, "memory_allocated": 3 * GIB}
    for name, value in told.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    assert cache_limit._free_bytes(torch.device("cuda", 0)) == 9 * GIB


def test_a_bound_that_holds_no_block_says_what_one_takes():
    with pytest.raises(InputError, match=r"holds no block of 64 tokens, which takes .* GiB .*--cache-gib"):
        Engine(model_of("qwen3"), (), torch.float32, cache_bytes=1000)


def test_what_does_not_fit_the_bound_is_refused_and_the_others_go_on():
    model = model_of("qwen3")
    block = Engine(model, (), torch.float32).cache_limit.block_bytes
    engine = Engine(model, (), torch.float32, cache_bytes=3 * block)
    (answer,) = engine.submit(Request((1,) * 100, 0, sampling=Sampling(max_tokens=50)))
    with pytest.raises(
        InputError, match=r"needs more cache than there is room for: .* allow more \(--cache-gib\)"
    ):
        engine.submit(Request((1,) * 200, 0, sampling=Sampling(max_tokens=50)))
    assert finished(engine)[answer].finish_reason == "length"
    assert engine.pool.num_blocks == 3


@pytest.mark.parametrize("kind", [None, "mtp", "draft"])
def test_a_cache_that_costs_memory_begins_small_and_grows_as_it_fills(kind, monkeypatch):
    monkeypatch.setattr(engine_module, "_FIRST_BYTES", 1)
    model = model_of("plain")
    requests = [one for one in requests_of(longest=90) if max(one.prompt) < model.config.vocab_size]
    engine = speculating(model, kind, num_slots=4)
    engine.reserve(4, 180)
    assert isinstance(engine.runner, PlainRunner)
    assert engine.pool.num_blocks == 1
    answers = [answer for request in requests for answer in engine.submit(request)]
    found = finished(engine)
    assert 4 < engine.pool.num_blocks < 4 * 180 // BLOCK_TOKENS + 4
    alone = [speculating(model).generate([request])[0] for request in requests]
    assert [found[answer].tokens for answer in answers] == [one.tokens for group in alone for one in group]


def test_the_draft_model_s_format_is_the_one_that_it_can_be_kept_in():
    engine = speculating(model_of("qwen3"), "draft", draft=tiny_model(CONFIGS["qwen3"]))
    assert isinstance(engine.speculation, Speculation)
    engine.generate([Request((1, 2, 3), 0)])
    assert held_bytes(engine) == engine.pool.num_blocks * engine.cache_limit.block_bytes
