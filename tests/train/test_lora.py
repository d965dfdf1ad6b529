"""The laws hold for an adapter too: its gradient does not know how it was computed, the base never moves."""

import copy

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.config.load import parse_recipe
from clearseek.config.lora import Lora
from clearseek.config.recipe import Optimizer
from clearseek.engine.engine import Engine
from clearseek.model.kernels import library
from clearseek.model.lora import Adapter
from clearseek.train.learner import Learner, micro_batches
from clearseek.train.parallel import is_spread, whole_tensors
from clearseek.train.state import ResumePoint, latest_resume_point, save_resume_point
from tests.model.adapted import adapter_over, key_of
from tests.model.every_family import every_family
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, tiny_model
from tests.train.ranks import on_ranks
from tests.train.small import CPU, relative_difference, some_rows, stage_of, step_on

SHAPES = CONFIGS | every_family()
FAMILIES = ["deepseek_v3 many experts", *every_family()]
LIMIT = 1e-6


def adapted_learner(name, config=None, dtype=torch.float32, **changes):
    config = config or SHAPES[name]
    adapter = adapter_over(config, ["all-linear"], std=0.05)
    stage = stage_of(config, mtp_loss_weight=0.0, lora=Lora(), **changes)
    return Learner(tiny_model(config, std=0.05), stage, dtype, False, adapter)


@pytest.mark.parametrize("name", FAMILIES)
def test_micro_batches_do_not_change_the_gradient(name):
    """T1 and T2."""
    rows = some_rows()
    expected, whole = step_on(adapted_learner(name), rows, 7)
    assert len(expected) == 2 * len(adapted_learner(name).adapter.factors)
    for size in (1, 3, 12):
        found, result = step_on(adapted_learner(name), rows, size)
        assert relative_difference(found, expected) < LIMIT
        assert result.loss == pytest.approx(whole.loss, rel=1e-6)
        assert result.grad_norm == pytest.approx(whole.grad_norm, rel=1e-6)


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_factors_learn(name):
    """The base stays to the bit, keeps no gradients and takes no optimiser state."""
    learner = adapted_learner(name)
    base = {key: tensor.clone() for key, tensor in learner.model.state_dict().items()}
    factors = {key: tensor.clone() for key, tensor in learner.adapter.state_dict().items()}
    for step in range(2):
        step_on(learner, some_rows(seed=step), 3)
    assert all(torch.equal(tensor, base[key]) for key, tensor in learner.model.state_dict().items())
    assert all(parameter.grad is None for parameter in learner.model.parameters())
    resting = [
        key for key, tensor in learner.adapter.state_dict().items() if torch.equal(tensor, factors[key])
    ]
    assert all(".experts." in key for key in resting), "only experts that no token chose stay"
    assert len(resting) < len(factors)
    held = sum(tensor.numel() for key, tensor in learner.optimizer.state().items() if "exp_avg" in key)
    assert held == 2 * learner.adapter.num_parameters


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_an_adapter_learns(name):
    """Rows that come again and again are learnt by heart, from an adapter that changes nothing at first."""
    config = SHAPES[name]
    adapter = Adapter.fresh(config, Lora(rank=8), key_of, "targets")
    stage = stage_of(config, mtp_loss_weight=0.0, balance_loss_weight=0.0, lora=Lora())
    stage = stage.model_copy(update={"optimizer": Optimizer(learning_rate=0.02)})
    learner = Learner(tiny_model(config), stage, torch.float32, False, adapter)
    losses = [step_on(learner, some_rows(4), 4)[1].loss for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_gradient_is_that_of_full_training_seen_through_the_factors():
    """dB = s dW Aᵀ and dA = s Bᵀ dW, where dW is what a full step at the merged weights computes."""
    learner = adapted_learner("deepseek_v3")
    found, _ = step_on(learner, some_rows(), 7)
    fresh = adapted_learner("deepseek_v3")
    stage = stage_of(fresh.model.config)
    full = Learner(copy.deepcopy(fresh.whole_model()).requires_grad_(True), stage, torch.float32, False)
    dense, _ = step_on(full, some_rows(), 7)
    for name, (a, b) in fresh.adapter.factors.items():
        piece, scale = fresh.adapter.modules[name].piece, fresh.adapter.settings.scale
        slope = piece.of(dense[piece.ours])
        torch.testing.assert_close(found[f"{name}.lora_A.weight"], scale * b.T @ slope, rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(found[f"{name}.lora_B.weight"], scale * slope @ a.T, rtol=1e-4, atol=1e-7)


def steps_on_ranks(name, steps=2, folder=None, save_at=None):
    learner, first = adapted_learner(name), 0
    assert not is_spread(learner.model)
    point = latest_resume_point(folder) if folder else None
    if point is not None:
        point.restore(learner.adapter, learner.optimizer)
        first = point.step
    gradients, results = {}, []
    for step in range(first, steps):
        gradients, result = step_on(learner, some_rows(5, seed=step), 2)
        results.append(result)
        if step + 1 == save_at:
            point = ResumePoint("x", step + 1, 0, 0, "")
            save_resume_point(folder, point, learner.trained, learner.optimizer)
    state = learner.adapter.state_dict() | learner.optimizer.state()
    return gradients, results, whole_tensors(state, everywhere=True)


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_two_ranks_compute_the_gradient_of_one_process(tmp_path, name):
    """T1 over ranks, each holding all of the frozen model."""
    expected, alone, after = steps_on_ranks(name, 1)
    both = on_ranks(2, steps_on_ranks, tmp_path, name, 1)
    for gradients, results, state in both:
        assert relative_difference(gradients, expected) < LIMIT
        assert results[0].loss == pytest.approx(alone[0].loss, rel=1e-6)
        assert results[0].grad_norm == pytest.approx(alone[0].grad_norm, rel=1e-6)
        assert relative_difference(state, after) < 1e-4
    assert all(torch.equal(both[0][2][key], both[1][2][key]) for key in both[0][2])


def test_two_ranks_resume_to_the_bit(tmp_path):
    name, folder = "qwen3", tmp_path / "points"
    straight = on_ranks(2, steps_on_ranks, tmp_path, name, 3)
    on_ranks(2, steps_on_ranks, tmp_path, name, 2, folder, 2)
    resumed = on_ranks(2, steps_on_ranks, tmp_path, name, 3, folder)
    for (_, losses, expected), (_, later, found) in zip(straight, resumed, strict=True):
        assert losses[2:] == later
        assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sampler_s_weights_are_those_that_the_trainer_computes_with(dtype):
    """Law 1, bit for bit: merged once in fp32 and rounded once, on both sides."""
    learner = adapted_learner("deepseek_v3", dtype=dtype)
    step_on(learner, some_rows(), 7)
    engine = Engine(adapted_learner("deepseek_v3").whole_model(), [1], dtype)
    engine.load_weights(learner.whole_model())
    sampled = dict(engine.model.named_parameters())
    for name, tensor in learner.adapter.merged(learner.model, dtype).items():
        assert torch.equal(sampled[name], tensor), name


@pytest.mark.skipif(library.why_not() is not None, reason=f"no kernels: {library.why_not()}")
@pytest.mark.parametrize("linear_dtype", ["auto", "int8"])
@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3"])
def test_the_kernels_give_the_gradient_of_the_plain_forms(name, linear_dtype):
    """Adapted weights go through the fused kernels like any others."""
    config, rows = lane_sized(name).config, some_rows(12)

    def gradient(**changes):
        return step_on(adapted_learner(name, config, torch.bfloat16, **changes), rows, 12)[0]

    found = gradient(linear_dtype=linear_dtype)
    expected, _ = step_on(adapted_learner(name, config), rows, 12)
    assert relative_difference(found, expected) < (0.2 if linear_dtype == "int8" else 0.05)


def test_a_pass_without_gradients_is_the_same_pass():
    learner = adapted_learner("qwen3")
    (batch,) = micro_batches(some_rows(), 7, CPU)
    with torch.no_grad():
        quiet, _ = learner.log_probs(batch)
    assert torch.equal(quiet, learner.log_probs(batch)[0].detach())


STAGE = {"kind": "sft", "start": "x", "data": [{"path": "x"}]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora": {"rnk": 3}}, "unknown key stages.s.lora.rnk; did you mean 'rank'"),
        ({"lora": {"rank": 0}}, "stages.s.lora.rank = 0"),
        ({"lora": {"targets": []}}, "stages.s.lora.targets"),
        ({"lora": {"adapter": "x", "rank": 3}}, "rank is the adapter's own"),
        ({"lora": {}, "optimizer": {"name": "muon"}}, "learns with adamw"),
        ({"lora": {}, "mtp_loss_weight": 0.3}, "mtp_loss_weight has to be 0"),
        ({"lora": {}, "bias_update_rate": 0.1}, "bias_update_rate has to be 0"),
    ],
)
def test_what_an_adapter_can_not_do_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        parse_recipe({"name": "r", "stages": {"s": STAGE | changes}}, "r.toml")


def test_what_is_left_out_stands_in_the_recipe():
    stage = parse_recipe({"name": "r", "stages": {"s": STAGE | {"lora": {"rank": 4}}}}, "r.toml").stages["s"]
    assert stage.lora == Lora(rank=4, alpha=32.0, targets=["all-linear"], rslora=False)
    assert stage.lora.scale == 8
    assert Lora(rank=4, alpha=8.0, rslora=True).scale == 4
    assert stage.bias_update_rate == 0
    again = parse_recipe({"name": "r", "stages": {"s": stage.model_dump(mode="json")}}, "r.toml")
    assert again.stages["s"] == stage
