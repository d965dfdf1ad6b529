"""The plan: parameters, operations, memory, time and money against independent counts."""

import json

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.config.load import load_recipe, parse_recipe
from clearseek.config.shipped import find_recipe
from clearseek.model.decoder import Decoder
from clearseek.recipe import speed
from clearseek.recipe.accelerators import ACCELERATORS, SAMPLING_UTILISATION
from clearseek.recipe.memory import check_memory, memory_of
from clearseek.recipe.plan import plan_recipe
from clearseek.recipe.workload import work_of
from tests.recipe.bases import TINY, make_base


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Measuring takes no time."""
    monkeypatch.setattr(speed, "_SECONDS_A_SHAPE", 0.0)


@pytest.fixture(scope="module")
def r1():
    return plan_recipe(load_recipe(find_recipe("r1-671b")), "h800", 2048, 2.0)


def small(stages=None, **more):
    values = {
        "name": "small",
        "models": {"m": TINY | {"vocab_size": 320}},
        "stages": {
            "tokenizer": {"kind": "tokenizer", "vocab_size": 320, "data": [{"problems": {}, "count": 10}]},
            **(stages or {}),
        },
    }
    return parse_recipe(values | more, "small")


PRETRAIN = {"kind": "pretrain", "start": "m", "tokens": 1_000_000, "data": [{"problems": {}, "count": 100}]}
RL = {"kind": "rl", "start": "m", "steps": 3, "problems_per_step": 4, "group_size": 2, "evaluate": False}


def stage_of(plan, name):
    return next(stage for stage in plan.to_dict()["stages"] if stage["name"] == name)


def test_deepseek_v3_has_its_published_size(r1):
    parameters = stage_of(r1, "pretrain")["parameters"]
    assert parameters["total"] == pytest.approx(671e9, rel=0.01)
    assert parameters["active"] == pytest.approx(36.7e9, rel=0.01)  # README_WEIGHTS.md of DeepSeek-V3


def test_deepseek_v3_s_pretraining_takes_what_was_published(r1):
    comparison = r1.to_dict()["published"][0]
    assert comparison["stages"] == ["pretrain"]
    assert comparison["published_device_hours"] == 2_664_000
    assert abs(comparison["difference"]) < 0.15
    assert comparison["planned_device_hours"] == pytest.approx(stage_of(r1, "pretrain")["device_hours"])
    lines = "\n".join(r1.render())
    assert "planned, 2,664K published" in lines
    assert "arXiv:2505.09343" in lines


def test_our_operations_are_those_of_deepseek_s_utilisation():
    """385 TFLOP/s on 2,048 devices, 19.926 s a step of 15,360 rows of 4,096 (arXiv:2505.09343, table 4)."""
    recipe = load_recipe(find_recipe("r1-671b"), ["pretrain.mtp_loss_weight=0"])
    ours = work_of(recipe, "pretrain").training_flops / 14.8e12
    assert ours == pytest.approx(385e12 * 2048 * 19.926 / (15_360 * 4096), rel=0.01)


def test_the_sampling_rate_is_that_of_deepseek_s_serving():
    """14,800 output tokens/s of eight devices at 4,989 tokens of context."""
    from clearseek.train.flops import forward_flops

    config = load_recipe(find_recipe("r1-671b")).models["v3"]
    flops = forward_flops(config, 14_800 / 8, 4989, causal=False)
    assert flops / 989.4e12 == pytest.approx(SAMPLING_UTILISATION, abs=0.001)


def test_time_and_money_follow_from_operations(r1):
    stage = stage_of(r1, "pretrain")
    seconds = stage["flops"]["training"] / (989.4e12 * 0.3894 * 2048)
    assert stage["seconds"] == pytest.approx(seconds)
    assert stage["cost"] == pytest.approx(stage["device_hours"] * 2)
    totals = r1.to_dict()["totals"]
    assert totals["cost"] == pytest.approx(sum(s["cost"] for s in r1.to_dict()["stages"]))
    assert json.loads(json.dumps(r1.to_dict()))["totals"] == totals


def test_reinforcement_learning_counts_every_published_sample(r1):
    sampled = sum(stage_of(r1, name)["tokens"]["sampled"] for name in ("r1-zero", "r1-zero-long"))
    assert sampled == 512 * (8200 * 32_768 + 2200 * 65_536)


def test_the_machine_s_own_plan_names_its_source():
    plan = plan_recipe(small({"pretrain": PRETRAIN}))
    assert stage_of(plan, "pretrain")["seconds"] > 0
    assert stage_of(plan, "pretrain")["cost"] is None
    assert "measured now" in "\n".join(plan.render())
    assert plan_recipe(small({"pretrain": PRETRAIN}), price_per_hour=3.0).to_dict()["totals"]["cost"] > 0


def test_the_vocabulary_comes_from_the_tokenizer_stage():
    model = {"models": {"m": TINY}}
    plan = plan_recipe(small({"pretrain": PRETRAIN}, **model), "h100")
    assert plan.stages[1].work.config.vocab_size == 320


def test_parameters_are_those_of_the_real_model():
    plan = plan_recipe(small({"pretrain": PRETRAIN}), "h100")
    work = plan.stages[1].work
    matrices = sum(p.numel() for p in Decoder(work.config).parameters() if p.ndim > 1)
    assert work.total_parameters == work.active_parameters == matrices


def test_a_user_s_model_is_planned_from_its_directory(tmp_path):
    base = make_base(tmp_path / "base", ["What is 6 times 7?"])
    plan = plan_recipe(small({"rl": RL | {"start": str(base)}}), "4090")
    assert stage_of(plan, "rl")["parameters"]["total"] > 0


def test_examinations_on_the_way_are_counted():
    once = small({"rl": RL | {"evaluate": True}}, evaluation={"count": 10, "max_completion_tokens": 5})
    never = small({"rl": RL})
    often = small(
        {"rl": RL | {"evaluate": True, "evaluate_every": 1}},
        evaluation={"count": 10, "max_completion_tokens": 5},
    )
    sampled = [work_of(recipe, "rl").sampled_tokens for recipe in (never, once, often)]
    assert sampled == [3 * 4 * 2 * 96, 3 * 4 * 2 * 96 + 50, 3 * 4 * 2 * 96 + 150]


def test_data_on_disk_are_measured_and_absent_ones_named(tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.md").write_text("x" * 3000)
    sft = {"kind": "sft", "start": "m", "epochs": 2, "evaluate": False}
    here = small({"sft": sft | {"data": [{"path": str(tmp_path / "docs")}]}})
    assert work_of(here, "sft").trained_tokens == pytest.approx(2000)
    absent = small({"sft": sft | {"data": [{"path": str(tmp_path / "nowhere")}]}})
    notes = plan_recipe(absent, "h100").to_dict()["notes"]
    assert any("sft: its data are not here to be counted" in note for note in notes)


@pytest.mark.parametrize(
    ("name", "message"), [("h10", r"did you mean 'h\d00'.*known: h800, h100"), ("tpu", "known: h800, h100")]
)
def test_an_unknown_accelerator_is_refused_with_the_list(name, message):
    with pytest.raises(InputError, match=message):
        plan_recipe(small(), name)


def test_several_of_this_machine_are_refused():
    with pytest.raises(InputError, match="--count 2 needs --accelerator"):
        plan_recipe(small(), count=2)


def test_rows_beyond_the_context_are_refused():
    with pytest.raises(
        InputError, match=r"sequence_length \(8192\) does not fit the context of 'm'.* is 4096"
    ):
        plan_recipe(small({"pretrain": PRETRAIN | {"sequence_length": 8192}}), "h100")


def test_too_little_memory_is_refused_with_both_numbers(monkeypatch):
    monkeypatch.setattr("clearseek.recipe.speed.machine_memory", lambda device: 2**31)
    with pytest.raises(
        InputError, match=r"stages\.pretrain needs .* GiB of memory, this machine has 2\.0 GiB"
    ):
        plan_recipe(small({"pretrain": PRETRAIN | {"micro_batch_rows": 2048}}))


def test_a_run_checks_its_memory_before_it_starts(monkeypatch):
    monkeypatch.setattr("clearseek.recipe.memory.machine_memory", lambda device: 2**31)
    check_memory(small({"pretrain": PRETRAIN}), torch.device("cpu"), torch.float32)
    large = small({"pretrain": PRETRAIN | {"micro_batch_rows": 2048}})
    with pytest.raises(InputError, match=r"stages\.pretrain .* this machine has 2\.0 GiB"):
        check_memory(large, torch.device("cpu"), torch.float32)


def test_the_full_size_does_not_fit_one_card():
    with pytest.raises(
        InputError, match=r"stages\.pretrain needs [\d,.]+ GiB of memory, NVIDIA GeForce RTX 4090 has"
    ):
        plan_recipe(load_recipe(find_recipe("r1-671b")), "4090")


def test_what_fits_only_when_spread_is_marked(r1):
    text = "\n".join(r1.render())
    assert "would not fit as clearseek holds it today" in text
    assert "≥" in text


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_training_state_is_what_a_step_leaves(optimizer):
    from clearseek.train.optimizer import Optimizer

    recipe = small({"pretrain": PRETRAIN | {"optimizer": {"name": optimizer}}})
    model = Decoder(work_of(recipe, "pretrain").config)
    model.initialise(torch.Generator().manual_seed(0))
    trained = Optimizer(model.named_parameters(), recipe.stages["pretrain"].optimizer)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    trained.step(1.0)
    real = sum(t.numel() * t.element_size() for t in trained.state().values() if t.ndim > 1)
    planned = memory_of(recipe, work_of(recipe, "pretrain"))
    assert planned.optimizer == pytest.approx(real, rel=0.01)


def test_activations_are_near_what_a_step_keeps():
    """Counted where autograd saves them, every storage once."""
    recipe = small({"pretrain": PRETRAIN | {"micro_batch_rows": 4}})
    work = work_of(recipe, "pretrain")
    model = Decoder(work.config)
    model.initialise(torch.Generator().manual_seed(0))
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    tokens = torch.zeros(4, 128, dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        states = model(tokens, torch.ones_like(tokens), torch.float32).states
        loss = model.logits(states).log_softmax(-1).sum()
    planned = memory_of(recipe, work, compute_bytes=4).activations
    assert 0.5 < sum(kept.values()) / planned < 1.5
    assert loss.requires_grad


@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_accelerator_s_numbers_have_sources(name):
    chosen = ACCELERATORS[name]
    assert 0 < chosen.training_utilisation[0] < 1
    assert all((chosen.specification, chosen.training_utilisation[1], chosen.price_source))
    assert chosen.fp8_tflops is None or chosen.fp8_tflops == pytest.approx(2 * chosen.bf16_tflops, rel=0.01)


def test_published_figures_must_name_stages():
    with pytest.raises(InputError, match=r"published\.pre is 'pre', which is no earlier stage"):
        small({"pretrain": PRETRAIN}, published={"pre": {"gpu_hours": 1, "source": "x"}})


def test_a_misspelt_published_key_is_named():
    with pytest.raises(InputError, match=r"published\.pretrain\.gpu_hour.*did you mean 'gpu_hours'"):
        small({"pretrain": PRETRAIN}, published={"pretrain": {"gpu_hour": 1, "source": "x"}})


@pytest.mark.parametrize("has_kernels", [True, False])
def test_linear_layers_in_int8_take_less_time_where_there_are_kernels(monkeypatch, has_kernels):
    monkeypatch.setattr(speed, "fits", lambda dtype, tensor: has_kernels)
    monkeypatch.setattr(speed, "measure_products", lambda *given: 1e11)
    seconds = {
        dtype: stage_of(plan_recipe(small({"p": PRETRAIN | {"linear_dtype": dtype, "evaluate": False}})), "p")
        for dtype in ("auto", "int8")
    }
    saved = seconds["auto"]["seconds"] / seconds["int8"]["seconds"]
    assert saved == pytest.approx(speed.INT8_SPEEDUP if has_kernels else 1.0)
