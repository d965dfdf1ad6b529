"""What is drawn against the distribution it should be drawn from."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.engine.sampler import sample
from clearseek.engine.streams import uniforms

LOGITS = torch.tensor([2.0, 1.0, 0.5, 0.0, -1.0, -3.0, 1.5, 0.2])
DRAWS = 40_000
LIMIT = 24.3  # 99.9 % of chi-square with 7 degrees of freedom


def draw(logits: torch.Tensor, temperature: float, top_p: float = 1.0) -> np.ndarray:
    drawn = sample(logits.expand(DRAWS, -1), torch.from_numpy(uniforms(5, 0, DRAWS)), temperature, top_p)
    return np.bincount(drawn.tokens.numpy(), minlength=len(logits))


def chi_square(counts: np.ndarray, probs: torch.Tensor) -> float:
    expected = probs.double().numpy() * counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_follow_the_softmax(temperature):
    assert chi_square(draw(LOGITS, temperature), torch.softmax(LOGITS / temperature, -1)) < LIMIT


@pytest.mark.parametrize("top_p", [0.3, 0.7, 0.95])
def test_top_p_draws_from_the_smallest_set_that_reaches_it(top_p):
    probs = torch.softmax(LOGITS, -1)
    order = probs.argsort(descending=True).tolist()
    kept, mass = [], 0.0
    for token in order:
        if mass >= top_p:
            break
        kept.append(token)
        mass += float(probs[token])
    counts = draw(LOGITS, 1.0, top_p)
    assert set(np.flatnonzero(counts)) == set(kept)
    if len(kept) > 1:
        assert chi_square(counts[kept], probs[kept] / probs[kept].sum()) < LIMIT


def test_a_tiny_top_p_and_temperature_0_take_the_likeliest():
    numbers = torch.tensor([0.0, 0.5, 0.999999])
    for temperature, top_p in ((1.0, 1e-6), (0.0, 1.0), (0.0, 0.5)):
        assert sample(LOGITS.expand(3, -1), numbers, temperature, top_p).tokens.tolist() == [0, 0, 0]


@pytest.mark.parametrize("top_p", [1.0, 0.5])
def test_log_probs_and_entropies_are_those_of_the_untruncated_distribution(top_p):
    logits = torch.randn(6, 11, generator=torch.Generator().manual_seed(0))
    drawn = sample(logits, torch.linspace(0, 0.99, 6), 0.7, top_p)
    log_probs = torch.log_softmax(logits / 0.7, -1)
    assert torch.equal(drawn.log_probs, log_probs[torch.arange(6), drawn.tokens])
    torch.testing.assert_close(
        drawn.entropies, torch.distributions.Categorical(logits=logits / 0.7).entropy()
    )


def test_a_row_is_drawn_the_same_whatever_stands_beside_it():
    logits = torch.randn(9, 50, generator=torch.Generator().manual_seed(1))
    numbers = torch.rand(9, generator=torch.Generator().manual_seed(2))
    for top_p in (1.0, 0.8):
        together = sample(logits, numbers, 1.0, top_p)
        for row in range(9):
            alone = sample(logits[row : row + 1], numbers[row : row + 1], 1.0, top_p)
            assert alone.tokens[0] == together.tokens[row]
            assert torch.equal(alone.log_probs[0], together.log_probs[row])


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from([1.0, 0.9, 0.1]))
def test_a_token_of_probability_0_is_never_drawn(data, top_p):
    """Not at the ends of the unit interval, nor where rounding leaves the probabilities short of 1."""
    size = data.draw(st.integers(2, 40))
    scores = st.sampled_from([-float("inf"), -200.0, -5.0, 0.0, 3.0])
    logits = torch.tensor([data.draw(st.lists(scores, min_size=size, max_size=size))])
    logits[0, data.draw(st.integers(0, size - 1))] = 1.0
    number = data.draw(st.sampled_from([0.0, 2.0**-24, 0.5, 1 - 2.0**-24]))
    token = sample(logits, torch.tensor([number]), 1.0, top_p).tokens[0]
    assert torch.softmax(logits, -1)[0, token] > 0
