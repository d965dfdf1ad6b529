"""Policy losses against finite differences and their papers, and what they make of what does not count."""

import pytest
import torch

from clearseek.train.policy_losses import (
    POLICY_LOSSES,
    PolicyTerms,
    kl_to_reference,
    sequence_mean,
    token_weight,
)
from clearseek.train.policy_objective import Measures, policy_objective
from tests.train.small import rl_stage

ROWS, LENGTH = 3, 12


def batch_of(dtype=torch.float64, seed=0):
    """Log-probabilities and extras of five completions in three rows; a third of the positions is masked."""
    generator = torch.Generator().manual_seed(seed)

    def noise(scale):
        return scale * torch.randn(ROWS, LENGTH, generator=generator, dtype=torch.float64)

    sequences = torch.tensor([[0] * 6 + [1] * 6, [2] * 12, [3] * 4 + [4] * 8])
    counted = torch.rand(ROWS, LENGTH, generator=generator) < 0.7
    log_probs = -1.5 - noise(1).abs()
    extras = {
        "advantages": torch.tensor([0.7, -0.4, 1.1, -0.9, 0.2], dtype=torch.float64)[sequences],
        "token_weights": counted / (5.0 + sequences),
        "sampled_log_probs": log_probs + noise(0.3),
        "old_log_probs": log_probs + noise(0.3),
        "reference_log_probs": log_probs + noise(0.5),
    }
    return log_probs.to(dtype), {n: v.to(dtype) for n, v in extras.items()} | {"sequences": sequences}


def stage_for(loss, **changes):
    return rl_stage(policy_loss=loss, clip_low=0.2, clip_high=0.28, kl_weight=0.3, **changes)


@pytest.mark.parametrize("loss", POLICY_LOSSES)
@pytest.mark.parametrize("kl_weight", [0.0, 0.3])
def test_gradients_equal_finite_differences(loss, kl_weight):
    """T4: every position, in float64. What a loss holds constant is held constant here too."""
    log_probs, extras = batch_of()
    stage = stage_for(loss).model_copy(update={"kl_weight": kl_weight})
    leaf = log_probs.clone().requires_grad_()
    policy_objective(stage, leaf, extras, Measures()).backward()
    for row in range(ROWS):
        for position in range(LENGTH):
            step = torch.zeros_like(log_probs)
            step[row, position] = 1e-6
            above, below = (objective_of(stage, log_probs + s * step, log_probs, extras) for s in (1, -1))
            expected = float(above - below) / 2e-6
            assert leaf.grad[row, position].item() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def objective_of(stage, moved, centre, extras):
    """The objective at `moved`; CISPO's weight carries no gradient, so it stays that of `centre`."""
    if stage.policy_loss != "cispo":
        return policy_objective(stage, moved, extras, Measures())
    ratio = (centre - extras["old_log_probs"]).exp().clamp(1 - stage.clip_low, 1 + stage.clip_high)
    loss = -ratio * extras["advantages"] * moved
    loss = loss + stage.kl_weight * kl_to_reference(moved, extras["reference_log_probs"])
    return (loss * extras["token_weights"]).sum()


@pytest.mark.parametrize("loss", POLICY_LOSSES)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e20, -7.0])
def test_what_does_not_count_may_be_anything(loss, value):
    """T3: bit for bit, loss, gradient and measures."""
    log_probs, extras = batch_of(torch.float32)
    stage, masked = stage_for(loss), extras["token_weights"] == 0
    clean, before = log_probs.clone().requires_grad_(), Measures()
    expected = policy_objective(stage, clean, extras, before)
    expected.backward()
    dirty, after = log_probs.masked_fill(masked, value).requires_grad_(), Measures()
    others = {
        n: v.masked_fill(masked, value) for n, v in extras.items() if n not in ("sequences", "token_weights")
    }
    found = policy_objective(stage, dirty, extras | others, after)
    found.backward()
    assert torch.equal(found, expected)
    assert torch.equal(dirty.grad, clean.grad)
    assert (clean.grad[masked] == 0).all()
    assert before == after


@pytest.mark.parametrize("loss", ["clip", "cispo", "gspo"])
def test_on_policy_every_loss_is_the_policy_gradient(loss):
    """T6: on the first update the ratio is exactly 1, nothing is clipped, and the gradient is REINFORCE's."""
    log_probs, extras = batch_of()
    del extras["old_log_probs"], extras["reference_log_probs"]
    gradients = []
    for name in ("reinforce", loss):
        leaf, measures = log_probs.clone().requires_grad_(), Measures()
        stage = stage_for(name).model_copy(update={"kl_weight": 0.0})
        policy_objective(stage, leaf, extras, measures).backward()
        gradients.append(leaf.grad)
        assert measures.clipped == 0
    if loss == "gspo":  # a completion's mean ratio spreads its gradient evenly: equal in sum, not by token
        for number in range(5):
            mine = extras["sequences"] == number
            assert gradients[1][mine].sum().item() == pytest.approx(gradients[0][mine].sum().item())
    else:
        torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-12, atol=0)


def test_clipping_stops_the_gradient_beyond_the_bounds():
    """Better actions above 1 + clip_high and worse ones below 1 − clip_low; never the other way."""
    ratio = torch.tensor([[1.4, 0.6, 1.4, 0.6]], dtype=torch.float64)
    advantages = torch.tensor([[1.0, 1.0, -1.0, -1.0]], dtype=torch.float64)
    leaf = ratio.log().requires_grad_()
    counted, sequences = torch.ones(1, 4, dtype=torch.bool), torch.arange(4)[None]
    terms = PolicyTerms(leaf, torch.zeros(1, 4), advantages, counted, sequences, 0.2, 0.28)
    POLICY_LOSSES["clip"](terms).sum().backward()
    assert (leaf.grad != 0).tolist() == [[False, True, True, False]]
    assert leaf.grad[0, 1] == pytest.approx(-0.6)


def test_measures_count_tokens_outside_the_clip_and_the_kl():
    log_probs, extras = batch_of()
    measures, counted = Measures(), extras["token_weights"] > 0
    policy_objective(stage_for("clip"), log_probs, extras, measures)
    ratio = (log_probs - extras["old_log_probs"]).exp()[counted]
    assert measures.clipped == int(((ratio < 0.8) | (ratio > 1.28)).sum())
    difference = (extras["old_log_probs"] - extras["sampled_log_probs"]).abs()[counted]
    assert measures.mismatch == pytest.approx(float(difference.max()))
    assert measures.difference == pytest.approx(float(difference.sum()))
    expected = kl_to_reference(log_probs, extras["reference_log_probs"])[counted].sum()
    assert measures.kl == pytest.approx(float(expected))


def test_the_kl_estimate_is_unbiased_and_never_negative():
    logits = torch.randn(2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    policy, reference = torch.log_softmax(logits, -1)
    estimate = kl_to_reference(policy, reference)
    exact = (policy.exp() * (policy - reference)).sum()
    assert (estimate >= 0).all()
    assert (policy.exp() * estimate).sum().item() == pytest.approx(exact.item())
    assert (kl_to_reference(policy, policy) == 0).all()


def test_sequence_means():
    values, sequences = (
        torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]]),
        torch.tensor([[0, 0, 1, 1], [2, 2, 2, 2]]),
    )
    counted = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]]).bool()
    assert sequence_mean(values, counted, sequences).tolist() == [[1.5, 1.5, 3, 3], [0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("aggregation", "total"), [("token_mean", 1.0), ("sequence_mean", 1.0), ("constant", 42 / (4 * 20))]
)
def test_weights_of_all_tokens_sum_to_one(aggregation, total):
    """Or, divided by the budget, to the share of it that was used."""
    lengths = [5, 20, 1, 16]
    weights = [n * token_weight(aggregation, n, sum(lengths), len(lengths), 20) for n in lengths]
    assert sum(weights) == pytest.approx(total)
    if aggregation == "sequence_mean":
        assert weights == pytest.approx([0.25] * 4)
