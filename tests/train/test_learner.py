"""Law 2: the gradient does not know how it was computed. And the routers' bias moves once per step."""

import numpy as np
import pytest
import torch

from clearseek.config.errors import RunError
from clearseek.model.kernels import library
from clearseek.text.packing import Rows
from clearseek.train.learner import Learner, update_selection_bias, weighted_sum
from clearseek.train.supervised import mean_loss
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, tiny_model
from tests.train.small import (
    CPU,
    gradient_of,
    learner_of,
    micro_batches,
    relative_difference,
    rl_stage,
    some_rows,
    stage_of,
    step_on,
)

FAMILIES = ["deepseek_v3 mtp", "deepseek_v3 many experts", "qwen3"]
LIMIT = 1e-6


@pytest.mark.parametrize("name", FAMILIES)
def test_micro_batches_do_not_change_the_gradient(name):
    """T1: 7 rows in micro-batches of 1, 2, 3, 5 (with empty rows to fill up) as in one of 7."""
    rows = some_rows()
    expected, whole = step_on(learner_of(name), rows, 7)
    for size in (1, 2, 3, 5):
        found, result = step_on(learner_of(name), rows, size)
        assert relative_difference(found, expected) < LIMIT
        assert result.loss == pytest.approx(whole.loss, rel=1e-6)
        assert result.mtp_loss == pytest.approx(whole.mtp_loss, rel=1e-6)
        assert result.balance_loss == pytest.approx(whole.balance_loss, rel=1e-6)
        assert result.expert_load_max == whole.expert_load_max
        assert result.grad_norm == pytest.approx(whole.grad_norm, rel=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_padding_does_not_change_the_gradient(name):
    """T2: wider rows, empty rows, and rows in another order."""
    rows = some_rows()
    expected, _ = step_on(learner_of(name), rows, 7)
    wide = Rows(*(np.pad(array, ((0, 0), (0, 9))) for array in (rows.tokens, rows.segments, rows.weights)))
    assert relative_difference(step_on(learner_of(name), wide, 7)[0], expected) < LIMIT
    assert relative_difference(step_on(learner_of(name), rows, 12)[0], expected) < LIMIT
    turned = rows.take([3, 6, 0, 2, 5, 1, 4])
    assert relative_difference(step_on(learner_of(name), turned, 7)[0], expected) < LIMIT


@pytest.mark.parametrize("name", FAMILIES)
def test_documents_do_not_see_each_other(name):
    """T2: two documents in a row count as they do in rows of their own (but for balance, counted by rows)."""
    rows = some_rows()
    apart = []
    for segment in (1, 2):
        mine = rows.segments == segment
        shift = mine.argmax(1)
        order = (np.arange(17)[None] + shift[:, None]) % 17
        taken = [
            np.take_along_axis(array, order, 1)
            for array in (rows.tokens, mine.astype(np.int32), rows.weights)
        ]
        apart.append(Rows(taken[0], taken[1], (taken[2] * taken[1]).astype(np.float32)))
    joined = Rows(
        *(np.concatenate([getattr(r, n) for r in apart]) for n in ("tokens", "segments", "weights"))
    )
    assert joined.num_counted_tokens == rows.num_counted_tokens
    expected, _ = step_on(learner_of(name, balance_loss_weight=0.0), rows, 7)
    found, _ = step_on(learner_of(name, balance_loss_weight=0.0), joined, 14)
    assert relative_difference(found, expected) < LIMIT


@pytest.mark.parametrize("name", FAMILIES)
def test_what_stands_in_padding_does_not_matter(name):
    """T3: bit for bit, but where tokens are sorted by expert, which changes the order of sums."""
    rows = some_rows()
    expected, before = step_on(learner_of(name), rows, 4)
    other = np.where(rows.segments == 0, 5, rows.tokens).astype(np.int32)
    assert (other != rows.tokens).any()
    found, after = step_on(learner_of(name), Rows(other, rows.segments, rows.weights), 4)
    if name == "deepseek_v3 many experts":
        assert relative_difference(found, expected) < LIMIT
        return
    assert before == after
    for key, gradient in expected.items():
        assert torch.equal(found[key], gradient), key


def test_log_probs_that_do_not_count_may_be_anything():
    """T3: NaN times a weight of 0 is NaN, and so would be its gradient."""
    (batch,) = micro_batches(some_rows(), 7, CPU)
    loss = mean_loss(30.0)
    clean = torch.randn(batch.targets.shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    masked = batch.target_weights == 0
    loss(clean, batch).backward()
    for value in (float("nan"), float("inf"), -float("inf"), 1e30):
        dirty = clean.detach().masked_fill(masked, value).requires_grad_()
        result = loss(dirty, batch)
        result.backward()
        assert torch.equal(result, loss(clean, batch))
        assert torch.equal(dirty.grad, clean.grad)
    assert (clean.grad[masked] == 0).all()


def test_weighted_sum_of_nothing_is_0():
    assert weighted_sum(torch.full((2, 3), float("nan")), torch.zeros(2, 3)) == 0


def test_a_gradient_that_is_not_finite_changes_nothing():
    learner = learner_of("qwen3")
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    rows = some_rows()
    with pytest.raises(RunError, match=r"gradient norm is (nan|inf); lower the learning rate"):
        learner.step(
            micro_batches(rows, 7, CPU), lambda log_probs, batch: (log_probs * float("inf")).sum(), 1.0, 7
        )
    for name, tensor in learner.model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_clipping_bounds_the_global_norm():
    rows = some_rows()
    free, result = step_on(learner_of("qwen3"), rows, 7)
    learner = learner_of("qwen3", clip=result.grad_norm / 4)
    clipped, again = step_on(learner, rows, 7)
    assert again.grad_norm == pytest.approx(result.grad_norm, rel=1e-6)
    for name, gradient in free.items():
        torch.testing.assert_close(clipped[name], gradient / 4, rtol=1e-4, atol=1e-8)


# Routers (what others got wrong: bias per micro-batch, drift, skipped layers, evaluation counted)


def biases(model) -> list[torch.Tensor]:
    return [router.selection_bias.clone() for router in model.routers()]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_the_bias_moves_once_per_step_in_every_layer(size):
    """Multi-token layers included, whatever the number of micro-batches; its mean stays at zero."""
    learner = learner_of("deepseek_v3 mtp", bias_update_rate=0.01)
    for router in learner.model.routers():
        router.selection_bias.zero_()
    expected = loads_of(learner.model, some_rows())
    step_on(learner, some_rows(), size)
    moved = biases(learner.model)
    assert len(moved) == 3
    for bias, tokens in zip(moved, expected, strict=True):
        direction = 0.01 * torch.sign(tokens.mean() - tokens)
        torch.testing.assert_close(bias, direction - direction.mean())
        assert abs(float(bias.mean())) < 1e-7
        assert bias.abs().max() > 0


def loads_of(model, rows) -> list[torch.Tensor]:
    (batch,) = micro_batches(rows, len(rows), CPU)
    with torch.no_grad():
        hidden = model(batch.tokens[:, :-1], batch.input_segments, torch.float32, len(model.mtp))
    return [load.tokens_per_expert for load in hidden.loads]


def test_the_bias_does_not_drift():
    learner = learner_of("deepseek_v3 mtp", bias_update_rate=0.05)
    for seed in range(30):
        step_on(learner, some_rows(3, seed=seed), 2)
    for bias in biases(learner.model):
        assert abs(float(bias.mean())) < 1e-6


def test_the_bias_evens_out_the_load():
    learner = learner_of("deepseek_v3 many experts", bias_update_rate=0.004)
    for router in learner.model.routers():
        router.selection_bias.zero_()[0] = 0.3  # everything goes to the first expert
    loads = [step_on(learner, some_rows(16, seed=seed), 16)[1].expert_load_max for seed in range(120)]
    assert loads[0] == pytest.approx(10.0)  # 20 experts, 2 chosen: all tokens are ten times a fair share
    print(loads)
    assert np.mean(loads[-10:]) < 2.5


def test_routers_that_did_not_run_stay():
    """Without a multi-token loss its module does not run; its bias must not follow another layer's load."""
    learner = learner_of("deepseek_v3 mtp", bias_update_rate=0.01, mtp_loss_weight=0.0)
    before = biases(learner.model)
    step_on(learner, some_rows(), 7)
    after = biases(learner.model)
    assert torch.equal(before[2], after[2])
    assert not torch.equal(before[0], after[0])


def test_evaluation_and_generation_are_not_counted():
    from clearseek.engine.engine import Engine
    from clearseek.engine.request import Request

    learner = learner_of("deepseek_v3 mtp")
    before = biases(learner.model)
    loads_of(learner.model, some_rows())
    Engine(learner.model, [1], torch.float32).generate([Request((5, 6), 0)])
    for one, other in zip(before, biases(learner.model), strict=True):
        assert torch.equal(one, other)


def test_the_load_is_the_busiest_expert_by_the_mean():
    model = tiny_model(CONFIGS["deepseek_v3"])
    counts = [torch.tensor([8.0, 0, 0, 0, 4, 4, 0, 0]), torch.tensor([2.0] * 8)]
    assert update_selection_bias(model, counts, 0.0) == pytest.approx(4.0)


def test_a_step_of_empty_rows_is_a_step_of_nothing():
    """What a rank without rows runs."""
    learner = learner_of("deepseek_v3 mtp")
    rows = some_rows(1)
    empty = Rows(rows.tokens, np.zeros_like(rows.segments), np.zeros_like(rows.weights))
    gradients, result = gradient_of(learner, micro_batches(empty, 2, CPU), 1, 1)
    assert (result.loss, result.grad_norm, result.balance_loss) == (0, 0, 0)
    assert all((gradient == 0).all() for gradient in gradients.values())


@pytest.mark.skipif(library.why_not() is not None, reason=f"no kernels: {library.why_not()}")
@pytest.mark.parametrize("name", ["deepseek_v3 mtp", "qwen3"])
def test_a_model_learns_in_int8_as_well_as_in_bf16(name):
    """By heart, 32 rows in 30 steps: to about the same loss, by other numbers."""
    losses = {}
    for dtype in ("auto", "int8"):
        model = lane_sized(name)
        learner = Learner(model, stage_of(model.config, linear_dtype=dtype), torch.bfloat16, False)
        assert (learner.why_not_int8 is None) == (dtype == "int8")
        losses[dtype] = [step_on(learner, some_rows(32), 32)[1].loss for _ in range(30)]
    assert losses["int8"] != losses["auto"]
    assert losses["auto"][-1] < 0.7 * losses["auto"][0]
    assert losses["int8"][-1] == pytest.approx(losses["auto"][-1], rel=0.03)


def test_where_no_kernel_multiplies_in_int8_linear_layers_stay_as_they_are():
    expected, _ = step_on(learner_of("qwen3"), some_rows(), 7)
    learner = learner_of("qwen3", linear_dtype="int8")
    assert learner.why_not_int8 == "they compute in bfloat16 on a CPU, not in float32 on cpu"
    assert relative_difference(step_on(learner, some_rows(), 7)[0], expected) == 0


def test_reinforcement_learning_is_never_in_int8():
    """A sampler in bf16 would not agree with it."""
    learner = Learner(lane_sized("qwen3"), rl_stage(), torch.bfloat16, False)
    assert learner.why_not_int8 == "it was not asked for"
