"""AdamW against torch's, Muon against a singular value decomposition."""

import pytest
import torch
from torch import nn

from clearseek.config.recipe import Optimizer as OptimizerConfig
from clearseek.train.optimizer import Optimizer, clip_gradients, is_muon_matrix, orthogonalise
from tests.model.tiny import CONFIGS, tiny_model


def named(seed=0):
    """Parameters of every kind that the optimiser tells apart."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "embedding.weight": (12, 8), "layers.0.attention.q.weight": (8, 8),
        "layers.0.attention_norm.weight": (8,),
        "layers.1.feed_forward.gate_up": (3, 10, 8), "layers.1.feed_forward.router.weight": (3, 8),
        "mtp.0.join.weight": (8, 16), "head.weight": (12, 8),
    }  # fmt: skip
    return {name: nn.Parameter(torch.randn(shape, generator=generator)) for name, shape in shapes.items()}


def give_gradients(parameters, seed):
    generator = torch.Generator().manual_seed(100 + seed)
    for parameter in parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_adamw_is_torch_s_with_decay_on_matrices_only():
    config = OptimizerConfig(learning_rate=0.01, betas=(0.8, 0.9), weight_decay=0.1)
    ours, theirs = named(), named()
    optimizer = Optimizer(ours.items(), config)
    decayed = [p for p in theirs.values() if p.ndim > 1]
    groups = [
        {"params": decayed, "weight_decay": 0.1},
        {"params": [p for p in theirs.values() if p.ndim < 2], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9))
    for step, share in enumerate((0.5, 1.0, 0.25)):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        optimizer.step(share)
        for group in reference.param_groups:
            group["lr"] = 0.01 * share
        reference.step()
        for name, parameter in ours.items():
            torch.testing.assert_close(parameter, theirs[name], rtol=1e-6, atol=1e-7)
            assert parameter.grad is None


def test_muon_takes_the_matrices_of_the_layers_and_adamw_the_rest():
    optimizer = Optimizer(named().items(), OptimizerConfig(name="muon"))
    assert set(optimizer.muon) == {
        "layers.0.attention.q.weight", "layers.1.feed_forward.gate_up", "mtp.0.join.weight"
    }  # fmt: skip
    assert set(optimizer.adamw) == named().keys() - optimizer.muon.keys()
    for name, config in CONFIGS.items():
        model = tiny_model(config)
        taken = {n for n, p in model.named_parameters() if is_muon_matrix(n, p)}
        assert not any("norm" in n or "router" in n or n.startswith(("embedding", "head")) for n in taken), (
            name
        )
        assert taken


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24), (64, 16), (128, 128)])
def test_orthogonalise_is_the_polar_factor(shape):
    """UVᵀ of the decomposition: same singular vectors, every singular value near 1 (0.7 to 1.2 by design)."""
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    u, values, vt = torch.linalg.svd(matrices, full_matrices=False)
    matrices = u @ torch.diag_embed(values.clamp(min=0.2 * float(values.max()))) @ vt  # none of them near 0
    found = orthogonalise(matrices)
    inside = u.mT @ found @ vt.mT
    diagonal = inside.diagonal(dim1=-2, dim2=-1)
    assert diagonal.min() > 0.6
    assert diagonal.max() < 1.3
    off = inside - torch.diag_embed(diagonal)
    assert off.abs().max() < 0.06
    assert found.dtype == matrices.dtype


def test_orthogonalise_takes_every_matrix_by_itself():
    matrices = (
        torch.randn(4, 6, 10, generator=torch.Generator().manual_seed(1))
        * torch.tensor([1, 1e-3, 50, 1.0])[:, None, None]
    )
    together = orthogonalise(matrices)
    for i in range(4):
        torch.testing.assert_close(together[i], orthogonalise(matrices[i : i + 1])[0], rtol=0, atol=0.02)


def test_a_muon_step_is_momentum_orthogonalised_and_scaled():
    config = OptimizerConfig(name="muon", muon_learning_rate=0.1, momentum=0.9, weight_decay=0.05)
    parameters = named()
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = Optimizer(parameters.items(), config)
    buffers = {name: torch.zeros_like(before[name]) for name in optimizer.muon}
    for step in range(3):
        give_gradients(parameters, step)
        gradients = {name: parameters[name].grad.clone() for name in optimizer.muon}
        optimizer.step(0.5)
        for name, buffer in buffers.items():
            buffer.mul_(0.9).add_(gradients[name], alpha=0.1)
            update = 0.1 * gradients[name] + 0.9 * buffer
            rows, columns = update.shape[-2:]
            direction = orthogonalise(update.reshape(-1, rows, columns)).view_as(update)
            before[name] = before[name] * (1 - 0.05 * 0.05) - 0.05 * max(1, rows / columns) ** 0.5 * direction
            torch.testing.assert_close(parameters[name].detach(), before[name], rtol=0, atol=2e-3)
            before[name] = parameters[name].detach().clone()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_state_restores_a_run_to_the_bit(name):
    config = OptimizerConfig(name=name, weight_decay=0.1)
    straight, stopped = named(), named()
    one, other = Optimizer(straight.items(), config), Optimizer(stopped.items(), config)
    for step in range(4):
        give_gradients(straight, step)
        one.step(1.0)
        if step == 2:
            state = {key: value.clone() for key, value in other.state().items()}
            other = Optimizer(reversed(stopped.items()), config)  # the order of parameters does not matter
            other.load_state(state)
        give_gradients(stopped, step)
        other.step(1.0)
    for key, value in one.state().items():
        assert torch.equal(value, other.state()[key]), key
    for key, parameter in straight.items():
        assert torch.equal(parameter, stopped[key]), key


def test_parameters_without_a_gradient_stay():
    parameters = named()
    before = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    optimizer = Optimizer(parameters.items(), OptimizerConfig(name="muon", weight_decay=0.1))
    give_gradients(parameters, 0)
    parameters["layers.0.attention.q.weight"].grad = None
    parameters["head.weight"].grad = None
    optimizer.step(1.0)
    same = {name for name, parameter in parameters.items() if torch.equal(parameter, before[name])}
    assert same == {"layers.0.attention.q.weight", "head.weight"}


def test_frozen_parameters_have_no_state():
    model = tiny_model(CONFIGS["qwen3"]).requires_grad_(False)
    assert Optimizer(model.named_parameters(), OptimizerConfig(name="muon")).state() == {}


@pytest.mark.parametrize(("largest", "scale"), [(1e9, 1.0), (1.0, None)])
def test_clipping(largest, scale):
    parameters = named()
    give_gradients(parameters, 0)
    before = torch.cat([p.grad.flatten() for p in parameters.values()])
    norm = clip_gradients(parameters.values(), largest)
    after = torch.cat([p.grad.flatten() for p in parameters.values()])
    assert norm == pytest.approx(float(before.norm()), rel=1e-6)
    torch.testing.assert_close(after, before * (scale or 1 / norm), rtol=1e-4, atol=1e-7)
