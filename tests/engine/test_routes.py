"""The experts that tokens went to: those that the model's own forward pass chooses, whatever happens on the way."""

import numpy as np
import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, some_tokens, tiny_model

FEW = {"num_experts_per_token": 2, "num_expert_groups": 4, "num_limited_groups": 2, "num_dense_layers": 1}
SHAPES = {
    "with kernels": lambda: lane_sized("deepseek_v3", max_position_embeddings=1024, **FEW),
    "without kernels": lambda: tiny_model(CONFIGS["deepseek_v3"]),
    "many experts": lambda: tiny_model(CONFIGS["deepseek_v3 many experts"]),
}


def model_of(name):
    return SHAPES[name]().requires_grad_(False)


def requests_of(model, lengths=(1, 2, 100, 300), samples=3, **own):
    own = {"max_tokens": 30, "routed_experts": True} | own
    return [
        Request(tuple(some_tokens(model.config, 1, n, n)[0].tolist()), n, samples, Sampling(**own))
        for n in lengths
    ]


def chosen(model, tokens):
    """By the routers in a full pass: [T, layers, K], ascending."""
    noted = []
    routers = [
        router for layer in model.layers for router in layer.modules() if router in list(model.routers())
    ]
    hooks = [router.register_forward_hook(lambda _, __, out: noted.append(out[1][0])) for router in routers]
    row = torch.tensor([tokens])
    model(row, torch.ones_like(row), torch.float32, 0)
    for hook in hooks:
        hook.remove()
    count = model.config.num_experts_per_token
    return torch.stack([mask.nonzero()[:, 1].view(-1, count) for mask in noted], 1).numpy()


def assert_chosen(model, request, completion):
    wanted = chosen(model, [*request.prompt, *completion.tokens[:-1]])
    assert completion.routed_experts.dtype == np.int16
    assert completion.routed_experts.shape == (len(request.prompt) + len(completion.tokens) - 1, 2, 2)
    np.testing.assert_array_equal(completion.routed_experts, wanted)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("settings", [{}, {"step_tokens": 50, "num_slots": 4}])
def test_they_are_the_forward_pass_s(name, settings):
    model = model_of(name)
    requests = requests_of(model)
    engine = Engine(model, (), torch.float32, **settings)
    for request, group in zip(requests, engine.generate(requests), strict=True):
        for completion in group:
            assert_chosen(model, request, completion)
    assert len(np.unique(group[0].routed_experts)) > 4


@pytest.mark.parametrize("name", ["with kernels", "without kernels"])
def test_what_the_cache_knew_before_anyone_asked_is_read_again(name):
    model = model_of(name)
    (request,) = requests_of(model, (200,))
    unasked = Request(request.prompt, request.key, 3, Sampling(max_tokens=30))
    engine = Engine(model, (), torch.float32, step_tokens=64)
    engine.generate([unasked])
    (found,) = engine.generate([request])
    for completion in found:
        assert_chosen(model, request, completion)
    known = engine.pool.hits
    (again,) = engine.generate([request])
    assert engine.pool.hits - known >= 192
    for completion in again:
        assert_chosen(model, request, completion)
    (plain,) = engine.generate([unasked])
    assert [c.tokens for c in plain] == [c.tokens for c in again]
    assert plain[0].routed_experts is None


@pytest.mark.parametrize("name", ["with kernels", "without kernels"])
def test_a_pause_changes_nothing(name, monkeypatch):
    model = model_of(name)
    requests = requests_of(model, max_tokens=90)
    monkeypatch.setattr(Engine, "_most_blocks", lambda self: 8)
    engine = Engine(model, (), torch.float32, num_slots=6)
    for request, group in zip(requests, engine.generate(requests), strict=True):
        for completion in group:
            assert_chosen(model, request, completion)
    assert engine.scheduler.num_paused > 0


def test_what_was_sampled_by_old_weights_keeps_their_routes():
    model = model_of("without kernels")
    new = tiny_model(CONFIGS["deepseek_v3"], seed=1).requires_grad_(False)
    (request,) = requests_of(model, (20,), 1)
    engine = Engine(model, (), torch.float32)
    (answer,) = engine.submit(request)
    for _ in range(10):
        assert engine.step() == []
    engine.load_weights(new)
    count = 20 + len(answer.sampled) - 1
    while not engine.is_idle:
        finished = engine.step()
    ((_, completion),) = finished
    old = chosen(model, [*request.prompt, *completion.tokens[:-1]])
    np.testing.assert_array_equal(completion.routed_experts[:count], old[:count])
    late = chosen(new, [*request.prompt, *completion.tokens[:-1]])
    np.testing.assert_array_equal(completion.routed_experts[count:], late[count:])
    assert len(completion.routed_experts) == len(old) > count


def test_what_was_cancelled_has_those_that_were_read():
    model = model_of("with kernels")
    (request,) = requests_of(model, (200,), 1)
    engine = Engine(model, (), torch.float32, step_tokens=64)
    (answer,) = engine.submit(request)
    engine.step()
    found = engine.cancel(answer).routed_experts
    np.testing.assert_array_equal(found, chosen(model, request.prompt)[:64])


def test_a_model_without_experts_has_none():
    with pytest.raises(InputError, match="routed_experts is asked of a model without experts"):
        Engine(tiny_model(CONFIGS["qwen3"]), (), torch.float32).submit(
            Request((1,), 0, sampling=Sampling(routed_experts=True))
        )
