"""The gradient of a whole latent and expert decoder against finite differences, in float64."""

import pytest
import torch

from clearseek.model.log_probs import log_probs_from_logits, token_log_probs
from tests.model.tiny import CONFIGS, some_tokens, tiny_model


@pytest.fixture
def in_float64(monkeypatch):
    """The model widens to fp32 where precision matters; here that widening keeps float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


@pytest.mark.usefixtures("in_float64")
@pytest.mark.parametrize("name", ["deepseek_v3 mtp", "deepseek_v3 yarn", "qwen3", "llama"])
def test_the_gradient_equals_finite_differences(name):
    """Along random directions of every parameter, by central differences; routing is left as it falls."""
    model = tiny_model(CONFIGS[name]).double()
    tokens = some_tokens(model.config, rows=2, length=10)
    segments = torch.tensor([[1] * 6 + [2] * 4, [1] * 8 + [0] * 2])

    def loss():
        hidden = model(tokens, segments, dtype=torch.float64)
        states = [hidden.states, *hidden.predicted_states]
        total = sum(token_log_probs(model.logits(state), tokens.flip(1)).sum() for state in states)
        return -total + sum(load.balance_loss for load in hidden.loads)

    loss().backward()
    generator = torch.Generator().manual_seed(3)
    for name, parameter in model.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        with torch.no_grad():
            step = 1e-6
            parameter += step * direction
            above = loss()
            parameter -= 2 * step * direction
            below = loss()
            parameter += step * direction
        expected = (above - below) / (2 * step)
        found = (parameter.grad * direction).sum()
        assert found.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6), name


def test_log_probs_are_a_distribution_at_any_temperature():
    logits = 5 * torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    for temperature in (0.3, 1.0, 2.0):
        log_probs = log_probs_from_logits(logits, temperature)
        torch.testing.assert_close(log_probs.exp(), torch.softmax(logits / temperature, dim=-1))
        targets = torch.tensor([0, 3, 8, 2])
        expected = log_probs[torch.arange(4), targets]
        assert torch.equal(token_log_probs(logits, targets, temperature), expected)
