"""Routing against brute force, both forms of the experts against each other, loads against counting."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from clearseek.config.model import ModelConfig
from clearseek.model.attention import Visible
from clearseek.model.experts import MAX_RANKED_EXPERTS, MixtureOfExperts, Router, top_mask
from tests.model.tiny import CONFIGS, LATENT, some_tokens, tiny_model


def config_with(**changes):
    return ModelConfig(**LATENT | changes)


def random_experts(config, seed=0):
    generator = torch.Generator().manual_seed(seed)
    module = MixtureOfExperts(config)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        bias = module.router.selection_bias
        bias.copy_(0.3 * torch.randn(bias.shape, generator=generator))
    return module, generator


# Choosing


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 24))
def test_top_mask_marks_the_largest(data, size):
    """Few distinct values, so that ties are the rule; the sum of what is chosen is the largest there is."""
    values = st.sampled_from([-float("inf"), -1.0, 0.0, 0.5, 2.0])
    scores = torch.tensor(data.draw(st.lists(values, min_size=size, max_size=size)))
    count = data.draw(st.integers(1, size))
    mask = top_mask(scores, count)
    assert mask.sum() == count
    assert scores[mask].sort().values.equal(scores.topk(count).values.sort().values)
    if size <= MAX_RANKED_EXPERTS:
        order = sorted(range(size), key=lambda i: (-scores[i].item(), i))
        assert mask.nonzero().flatten().tolist() == sorted(order[:count])


@pytest.mark.parametrize("size", [5, MAX_RANKED_EXPERTS, MAX_RANKED_EXPERTS + 1, 64])
def test_top_mask_equals_topk(size):
    scores = torch.randn(50, size, generator=torch.Generator().manual_seed(0))
    for count in (1, 2, size - 1, size):
        expected = torch.zeros_like(scores, dtype=torch.bool).scatter(-1, scores.topk(count).indices, True)
        assert torch.equal(top_mask(scores, count), expected)


def chosen_by_brute_force(biased, groups, limited, count):
    """Every set of groups, the best by the sum of each one's two best; then the best experts in them."""
    size = len(biased) // groups
    members = [range(group * size, (group + 1) * size) for group in range(groups)]
    worth = [sum(sorted((biased[i] for i in group), reverse=True)[:2]) for group in members]
    allowed = max(
        itertools.combinations(range(groups), limited), key=lambda some: sum(worth[g] for g in some)
    )
    experts = [i for group in allowed for i in members[group]]
    best = max(itertools.combinations(experts, count), key=lambda some: sum(biased[i] for i in some))
    return set(best)


@pytest.mark.parametrize(
    ("experts", "groups", "limited", "count"), [(8, 4, 2, 2), (8, 2, 1, 3), (12, 3, 2, 4), (20, 5, 2, 3)]
)
def test_group_limited_routing_equals_brute_force(experts, groups, limited, count):
    config = config_with(
        num_routed_experts=experts,
        num_expert_groups=groups,
        num_limited_groups=limited,
        num_experts_per_token=count,
    )
    module, generator = random_experts(config)
    router = module.router
    assert isinstance(router, Router)
    x = torch.randn(40, config.hidden_size, generator=generator)
    with torch.no_grad():
        affinity, chosen, gates = router(x)
    expected_affinity = torch.sigmoid(x @ router.weight.T)
    torch.testing.assert_close(affinity, expected_affinity)
    for token in range(len(x)):
        biased = (expected_affinity[token] + router.selection_bias).tolist()
        best = chosen_by_brute_force(biased, groups, limited, count)
        assert set(chosen[token].nonzero().flatten().tolist()) == best
        # gates: the unbiased affinities of the chosen, normalised and scaled (arXiv:2412.19437, eq. 13-16)
        total = sum(expected_affinity[token, i] for i in best)
        for i in range(experts):
            gate = expected_affinity[token, i] / total * 2.5 if i in best else torch.tensor(0.0)
            torch.testing.assert_close(gates[token, i], gate)


def test_the_selection_bias_steers_the_choice_and_carries_no_gradient():
    module, generator = random_experts(config_with(num_expert_groups=1, num_limited_groups=1))
    module.router.selection_bias.copy_(torch.tensor([0.0, 9, 0, 0, 9, 0, 0, 0]))
    _, chosen, gates = module.router(torch.randn(10, 32, generator=generator))
    assert chosen[:, [1, 4]].all()
    assert not module.router.selection_bias.requires_grad
    torch.testing.assert_close(gates.sum(-1), torch.full((10,), 2.5))


# Two forms of one sum


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_v3 many experts"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_and_dense_forms_agree(name, dtype):
    """The same output and the same gradients; some experts get no token at all."""
    config = CONFIGS[name]
    results = []
    for is_dense in (True, False):
        module, generator = random_experts(config)
        module.is_dense_form = is_dense
        x = torch.randn(2, 3, config.hidden_size, generator=generator).to(dtype).requires_grad_()
        output, _ = module(x, None)
        (output.float() * torch.randn(output.shape, generator=generator)).sum().backward()
        parameters = (module.gate_up, module.down, module.router.weight)
        results.append([output, x.grad, *(parameter.grad for parameter in parameters)])
    for dense, grouped in zip(*results, strict=True):
        tolerance = 1e-5 if dtype == torch.float32 else 0.03
        assert (dense - grouped).abs().max() <= tolerance * dense.abs().max()


def test_the_experts_equal_a_loop_over_tokens():
    config = CONFIGS["deepseek_v3"]
    module, generator = random_experts(config)
    x = torch.randn(1, 9, config.hidden_size, generator=generator)
    with torch.no_grad():
        output, _ = module(x, None)
        _, chosen, gates = module.router(x)
        for t in range(9):
            expected = module.shared(x[0, t])
            for e in chosen[0, t].nonzero().flatten():
                gate, up = (module.gate_up[e] @ x[0, t]).chunk(2)
                expected = expected + gates[0, t, e] * (
                    module.down[e] @ (torch.nn.functional.silu(gate) * up)
                )
            torch.testing.assert_close(output[0, t], expected)


# Load and balance


def test_padding_is_not_counted():
    model = tiny_model(CONFIGS["deepseek_v3 mtp"])
    tokens = some_tokens(model.config, rows=2, length=16)
    segments = torch.tensor([[1] * 10 + [0] * 6, [1] * 5 + [2] * 3 + [0] * 8])
    other = tokens.clone()
    other[segments == 0] = 3
    loads, again = model(tokens, segments).loads, model(other, segments).loads
    per_token = model.config.num_experts_per_token
    main, mtp = loads[:-1], loads[-1]
    assert len(main) == 2
    assert [int(load.tokens_per_expert.sum()) for load in main] == [18 * per_token] * 2
    assert int(mtp.tokens_per_expert.sum()) == 15 * per_token  # a document's last token predicts nothing
    for one, two in zip(loads, again, strict=True):
        assert torch.equal(one.tokens_per_expert, two.tokens_per_expert)
        torch.testing.assert_close(one.balance_loss, two.balance_loss)


def test_wider_padding_changes_no_load():
    """Law 2 for what balancing sees: the multi-token layer included."""
    model = tiny_model(CONFIGS["deepseek_v3 mtp"])
    tokens = some_tokens(model.config, rows=2, length=10)
    wide = torch.nn.functional.pad(tokens, (0, 7), value=2)
    narrow_loads = model(tokens, torch.ones_like(tokens)).loads
    wide_loads = model(wide, (torch.arange(17) < 10).int().expand(2, -1)).loads
    for one, two in zip(narrow_loads, wide_loads, strict=True):
        assert torch.equal(one.tokens_per_expert, two.tokens_per_expert)
        torch.testing.assert_close(one.balance_loss, two.balance_loss)


def test_loads_of_parts_add_up():
    model = tiny_model(CONFIGS["deepseek_v3"])
    tokens = some_tokens(model.config, rows=4, length=12)
    segments = (torch.arange(12) < torch.tensor([[12], [7], [3], [9]])).int()
    whole = model(tokens, segments).loads
    parts = [model(tokens[i : i + 1], segments[i : i + 1]).loads for i in range(4)]
    for layer, load in enumerate(whole):
        assert torch.equal(load.tokens_per_expert, sum(part[layer].tokens_per_expert for part in parts))
        torch.testing.assert_close(load.balance_loss, sum(part[layer].balance_loss for part in parts))


def test_balance_loss_equals_the_paper():
    """arXiv:2412.19437, eq. 17-20, token by token."""
    config = CONFIGS["deepseek_v3"]
    module, generator = random_experts(config)
    x = torch.randn(2, 6, config.hidden_size, generator=generator)
    counted = torch.tensor([[1] * 6, [1] * 4 + [0] * 2]).bool()
    affinity, chosen, _ = module.router(x)
    load = module.router.load(affinity, chosen, counted)
    expected = torch.tensor(0.0)
    for row in range(2):
        length = int(counted[row].sum())
        for e in range(8):
            frequency = 8 / (2 * length) * sum(float(chosen[row, t, e]) for t in range(length))
            share = sum(affinity[row, t, e] / affinity[row, t].sum() for t in range(length)) / length
            expected = expected + frequency * share
    torch.testing.assert_close(load.balance_loss, expected)
    load.balance_loss.backward()
    assert module.router.weight.grad.abs().max() > 0
    assert not load.tokens_per_expert.requires_grad


def test_recomputation_counts_no_token_twice():
    """Loads are returned, not accumulated in the module, so a layer run again in backward adds nothing."""
    model = tiny_model(CONFIGS["deepseek_v3"])
    layer = model.layers[1]
    x = torch.randn(2, 8, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
    turns = model.turns(8, x.device)
    visible = Visible(torch.ones(2, 8, dtype=torch.int))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def gradients(output, load):
        model.zero_grad()
        (output.square().sum() + load.balance_loss).backward()
        return [parameter.grad for parameter in layer.parameters()], load.tokens_per_expert

    plain, counts = gradients(*layer(x, turns, visible, torch.float32))
    again, recounts = gradients(*checkpoint(layer, x, turns, visible, torch.float32, use_reentrant=False))
    assert torch.equal(counts, recounts)
    assert counts.sum() == 16 * 2
    for one, two in zip(plain, again, strict=True):
        assert torch.equal(one, two)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_routers_come_in_the_order_of_their_loads():
    model = tiny_model(CONFIGS["deepseek_v3 mtp"])
    routers = list(model.routers())
    assert [id(router) for router in routers] == [
        id(model.layers[1].feed_forward.router),
        id(model.layers[2].feed_forward.router),
        id(model.mtp[0].layer.feed_forward.router),
    ]
    tokens = some_tokens(model.config, rows=1, length=6)
    for target, router in enumerate(routers):
        router.selection_bias.zero_()[target] = 50.0
    for target, load in enumerate(model(tokens, torch.ones_like(tokens)).loads):
        assert load.tokens_per_expert[target] == (6 if target < 2 else 5)
