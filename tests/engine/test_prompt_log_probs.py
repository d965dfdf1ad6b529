"""The log-probabilities of prompts: the trainer's, however a prompt is read and whatever the cache knows of it."""

import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.scheduler import REPORTED_ROWS
from clearseek.model.checkpoint import save_model
from clearseek.model.log_probs import log_probs_from_logits
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, some_tokens, tiny_model

SHAPES = {  # tiny ones are too narrow for the kernels
    "qwen3": lambda: lane_sized("qwen3", max_position_embeddings=1024),
    "deepseek_v3": lambda: lane_sized("deepseek_v3", max_position_embeddings=1024),
    "qwen3 without kernels": lambda: tiny_model(CONFIGS["qwen3"]),
    "deepseek_v3 without kernels": lambda: tiny_model(CONFIGS["deepseek_v3"]),
}


def prompt_of(model, length, seed=1):
    return tuple(some_tokens(model.config, 1, length, seed)[0].tolist())


def wanted(model, prompt):
    """Of every token but the first, by a full pass: [T - 1, V]."""
    row = torch.tensor([prompt])
    with torch.no_grad():
        logits = model.logits(model(row, torch.ones_like(row), torch.float32, 0).states)
    return log_probs_from_logits(logits)[0, :-1]


def assert_reported(completion, model, prompt, count):
    every = wanted(model, prompt)
    own = every.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    assert completion.prompt_log_probs[0] is None
    torch.testing.assert_close(torch.tensor(completion.prompt_log_probs[1:]), own, rtol=0, atol=1e-5)
    assert len(completion.prompt_alternatives) == len(prompt)
    assert completion.prompt_alternatives[0] is None
    for place, beside in enumerate(completion.prompt_alternatives[1:]):
        assert (beside is None) == (count == 0)
        if beside is not None:
            found = every[place, list(beside.tokens)]
            torch.testing.assert_close(torch.tensor(beside.log_probs), found, rtol=0, atol=1e-5)
            torch.testing.assert_close(found, every[place].topk(count).values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("settings", [{}, {"step_tokens": 7}, {"num_slots": 2}])
@pytest.mark.parametrize("count", [0, 3])
def test_they_are_the_trainer_s(name, settings, count):
    """Of prompts of one token and of many, at any temperature, beside requests that don't ask."""
    model = SHAPES[name]().requires_grad_(False)
    engine = Engine(model, (), torch.float32, **settings)
    prompts = [prompt_of(model, length, length) for length in (1, 2, 70, 2 * REPORTED_ROWS + 10)]
    asking = [
        Request(prompt, 3, 2, Sampling(0.5, max_tokens=5, prompt_log_probs=count)) for prompt in prompts
    ]
    groups = engine.generate([*asking, Request(prompts[2], 3, 2, Sampling(0.5, max_tokens=5))])
    for prompt, group in zip(prompts, groups[:-1], strict=True):
        for completion in group:
            assert_reported(completion, model, prompt, count)
    assert [c.tokens for c in groups[-1]] == [c.tokens for c in groups[2]]
    assert groups[-1][0].prompt_log_probs is None
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("name", SHAPES)
def test_what_the_cache_knows_is_read_anew_and_by_one_sample_alone(name):
    model = SHAPES[name]().requires_grad_(False)
    prompt = prompt_of(model, 200)
    engine = Engine(model, (), torch.float32)
    engine.generate([Request(prompt, 1)])
    (group,) = engine.generate([Request(prompt, 1, 4, Sampling(prompt_log_probs=2))])
    for completion in group:
        assert_reported(completion, model, prompt, 2)
    assert engine.pool.hits == 3 * 199
    engine.generate([Request(prompt, 1)])
    assert engine.pool.hits == 3 * 199 + 192


def test_a_sample_whose_siblings_have_gone_takes_over_what_they_read():
    model = SHAPES["qwen3"]().requires_grad_(False)
    prompt = prompt_of(model, 200)
    engine = Engine(model, (), torch.float32, num_slots=1)
    (group,) = engine.generate([Request(prompt, 1, 3, Sampling(prompt_log_probs=0))])
    for completion in group:
        assert_reported(completion, model, prompt, 0)
    assert engine.pool.hits == 2 * 192


def test_however_a_prompt_is_read_every_bit_is_the_same(monkeypatch):
    model = SHAPES["deepseek_v3"]().requires_grad_(False)
    requests = [
        Request(prompt_of(model, length, length), length, 2, Sampling(max_tokens=70, prompt_log_probs=1))
        for length in (300, 120, 250, 3)
    ]
    alone = [Engine(model, (), torch.float32).generate([request])[0] for request in requests]
    assert Engine(model, (), torch.float32, step_tokens=50).generate(requests) == alone
    monkeypatch.setattr(Engine, "_most_blocks", lambda self: 8)
    engine = Engine(model, (), torch.float32, num_slots=5)
    assert engine.generate(requests) == alone
    assert engine.scheduler.num_paused > 0


def test_they_are_of_the_weights_that_are_named():
    """New weights while a prompt is read, or after: what is reported is theirs alone."""
    model, new = (tiny_model(CONFIGS["qwen3"], seed).requires_grad_(False) for seed in (0, 1))
    prompt = prompt_of(model, 200)
    for steps in 1, 3, 5:
        engine = Engine(model, (), torch.float32, step_tokens=64)
        engine.submit(Request(prompt, 1, sampling=Sampling(max_tokens=9, prompt_log_probs=1)))
        for _ in range(steps):
            assert engine.step() == []
        engine.load_weights(new)
        ((_, completion),) = finished(engine)
        assert completion.weights_version == 1
        assert_reported(completion, new, prompt, 1)


def test_what_was_not_read_is_not_reported():
    model = tiny_model(CONFIGS["qwen3"]).requires_grad_(False)
    engine = Engine(model, (), torch.float32, step_tokens=64)
    (answer,) = engine.submit(Request(prompt_of(model, 200), 1, sampling=Sampling(prompt_log_probs=1)))
    engine.step()
    log_probs = engine.cancel(answer).prompt_log_probs
    assert [place for place, value in enumerate(log_probs) if value is not None] == list(range(1, 65))


def finished(engine):
    found = []
    while not engine.is_idle:
        found += engine.step()
    return found


@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3", "llama"])
def test_they_are_transformers(name, tmp_path):
    transformers = pytest.importorskip("transformers")
    model = tiny_model(CONFIGS[name]).requires_grad_(False)
    save_model(model, tmp_path, bos_id=0, eos_id=1, pad_id=2)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    prompt = prompt_of(model, 40)
    request = Request(prompt, 1, sampling=Sampling(0.3, max_tokens=1, prompt_log_probs=0))
    ((completion,),) = Engine(model, (), torch.float32).generate([request])
    with torch.no_grad():
        every = theirs(torch.tensor([prompt])).logits[0, :-1].log_softmax(-1)
    own = every.gather(1, torch.tensor(prompt[1:])[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(completion.prompt_log_probs[1:]), own, rtol=0, atol=1e-4)
