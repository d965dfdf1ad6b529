"""An adapter in every stage that trains: what is left, law 3, going on with one, and the plan."""

import json
import re
import tomllib
from pathlib import Path

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.config.load import parse_recipe, read_toml
from clearseek.config.lora import Lora
from clearseek.config.toml import to_toml
from clearseek.ledger.log import read
from clearseek.model.checkpoint import load_model
from clearseek.model.peft_format import read_adapter
from clearseek.recipe.memory import memory_of
from clearseek.recipe.plan import plan_recipe
from clearseek.recipe.run import run_recipe
from clearseek.recipe.workload import work_of
from clearseek.train import state
from clearseek.train.optimizer import Optimizer
from tests.recipe.adapted_run import ADAPTED, STAGES
from tests.recipe.moments import MOMENTS
from tests.recipe.tiny_run import contents, kill_at, run_in_child, write_recipe
from tests.train.ranks import on_ranks

MOMENTS_OF_ADAPTERS = {
    "in a step of an adapter": kill_at(Optimizer, "step", 4),
    "while an adapter's resume point is written": kill_at(state, "save_tensors", 3, before=False),
    "in the middle of a rollout": MOMENTS["in the middle of a rollout"],
    "between two updates of a batch": kill_at(Optimizer, "step", 9, before=False),
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("recipe"), ADAPTED)


@pytest.fixture(scope="module")
def straight(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "run"
    assert run_in_child(recipe, out) is None
    return out


@pytest.mark.parametrize("moment", MOMENTS_OF_ADAPTERS)
def test_a_killed_run_resumes_to_the_same_bytes(recipe, straight, tmp_path, moment):
    """Law 3: T10 with adapters."""
    out, expected = tmp_path / "run", contents(straight)
    assert run_in_child(recipe, out, MOMENTS_OF_ADAPTERS[moment]) == "killed"
    assert run_in_child(recipe, out) is None
    found = contents(out)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_two_ranks_do_what_one_process_does(recipe, straight, tmp_path):
    """Each holds the frozen model whole; the first steps agree to 1e-6, and rank 0 writes one run."""
    on_ranks(2, _run, tmp_path, recipe, tmp_path / "run", timeout_seconds=110.0)
    one, two = read(straight / "ledger.jsonl"), read(tmp_path / "run" / "ledger.jsonl")
    assert [(r["kind"], r.get("stage"), r.get("step")) for r in one] == [
        (r["kind"], r.get("stage"), r.get("step")) for r in two
    ]
    first = [next(r for r in records if r["kind"] == "step") for records in (one, two)]
    for field in ("loss", "grad_norm", "balance_loss"):
        assert first[1][field] == pytest.approx(first[0][field], rel=1e-6)
    config = load_model(straight / "checkpoints" / "sft").config
    ours, theirs = (
        read_adapter(run / "checkpoints" / "pretrain" / "adapter", config)
        for run in (straight, tmp_path / "run")
    )
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], tensor, rtol=1e-3, atol=1e-5)


def _run(recipe, out):
    run_recipe(recipe, out=out, device="cpu")


@pytest.mark.parametrize(("earlier", "later"), [("pretrain", "sft"), ("sft", "rl"), ("rl", "distill")])
def test_a_checkpoint_is_its_base_with_its_adapter(straight, earlier, later):
    """Merged weights for whatever reads a model, and beside them the adapter over what the stage began with."""
    checkpoints = straight / "checkpoints"
    base, merged = load_model(checkpoints / earlier), load_model(checkpoints / later)
    adapter = read_adapter(checkpoints / later / "adapter", base.config)
    assert all(bool((b != 0).any()) for name, (_, b) in adapter.factors.items() if "experts" not in name)
    before = base.state_dict()
    assert any(not torch.equal(before[name], tensor) for name, tensor in merged.state_dict().items())
    adapter.merge_into(base)
    assert all(torch.equal(before[name], tensor) for name, tensor in merged.state_dict().items())


def test_the_ledger_says_how_many_parameters_learnt(straight):
    started = {r["stage"]: r for r in read(straight / "ledger.jsonl") if r["kind"] == "stage_started"}
    finished = {r["stage"]: r for r in read(straight / "ledger.jsonl") if r["kind"] == "stage_finished"}
    plans = {plan.work.name: plan.work for plan in plan_recipe(_read(straight / "recipe.toml")).stages}
    for stage in STAGES:
        assert started[stage]["parameters"]["trained"] == plans[stage].num_trained > 0
        left = [output["path"] for output in finished[stage]["outputs"]]
        assert f"checkpoints/{stage}/adapter/adapter_model.safetensors" in left
    mismatch = [
        r["mismatch"] for r in read(straight / "ledger.jsonl") if r.get("stage") == "rl" and "mismatch" in r
    ]
    assert len(mismatch) == 3
    assert max(mismatch) < 1e-3


def _read(path):
    return parse_recipe(read_toml(path), str(path))


def test_the_plan_names_what_learns_and_takes_less_memory(recipe):
    adapted = plan_recipe(_read(Path(recipe)))
    values = read_toml(Path(recipe))
    for stage in STAGES:
        del values["stages"][stage]["lora"]
    full = plan_recipe(parse_recipe(values, "full"))
    assert any("trained)" in line for line in adapted.render())
    assert not any("trained)" in line for line in full.render())
    for ours, theirs in zip(adapted.stages[1:], full.stages[1:], strict=True):
        assert ours.work.num_trained < theirs.work.num_trained
        assert ours.memory.optimizer == 8 * ours.work.num_trained
        assert ours.memory.gradients == 4 * ours.work.num_trained
        assert ours.memory.total < theirs.memory.total


def test_memory_of_an_adapter_at_seven_billion():
    """fp32 weights once, adapted ones once more in bf16, and next to nothing for what learns."""
    shape = {
        "family": "qwen3", "vocab_size": 151_936, "hidden_size": 4096, "num_layers": 36, "num_heads": 32,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 12_288,
    }  # fmt: skip
    stage = {"kind": "sft", "start": "m", "data": [{"path": "x"}], "evaluate": False, "lora": {"rank": 16}}
    values = {
        "name": "x",
        "models": {"m": shape},
        "stages": {"t": {"kind": "tokenizer", "vocab_size": 151_936, "data": [{"path": "x"}]}, "s": stage},
    }
    recipe = parse_recipe(values, "x")
    work = work_of(recipe, "s")
    memory = memory_of(recipe, work)
    # 36 layers of 16 · (inputs + outputs): q, o 8,192 each, k, v 5,120 each, gate, up, down 16,384 each
    assert work.adapter_parameters == 36 * 16 * (2 * 8192 + 2 * 5120 + 3 * 16384)
    assert memory.weights == pytest.approx(4 * work.total_parameters + 2 * work.adapted_parameters, rel=0.01)
    assert memory.gradients + memory.optimizer == 12 * work.adapter_parameters


def test_an_adapter_goes_on_where_it_was(recipe, straight, tmp_path):
    """From what a stage left, over the base that it was trained on; the new one begins with its factors."""
    checkpoints = straight / "checkpoints"
    overrides = [
        f"sft.start={checkpoints / 'pretrain'}",
        "sft.epochs=0.01",
        "sft.optimizer.learning_rate=1e-12",
        f'sft.lora={{ adapter = "{checkpoints / "sft" / "adapter"}" }}',
    ]
    values = read_toml(Path(recipe))
    values["stages"] = {"sft": values["stages"]["sft"]}
    path = write_recipe(tmp_path, to_toml(values))
    result = run_recipe(path, overrides, out=tmp_path / "run", device="cpu")
    config = load_model(checkpoints / "sft").config
    first = read_adapter(checkpoints / "sft" / "adapter", config)
    second = read_adapter(result.run_dir / "checkpoints" / "sft" / "adapter", config)
    assert second.settings == first.settings
    for name, tensor in first.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], tensor, rtol=1e-5, atol=1e-9)
    (started,) = [r for r in read(result.run_dir / "ledger.jsonl") if r["kind"] == "stage_started"]
    assert [parent["path"] for parent in started["parents"]] == ["pretrain", "adapter"]


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ('{ targets = ["q_projj"] }', "stages.sft.lora.targets: 'q_projj' names no linear map"),
        ('{ adapter = "nowhere" }', "stages.sft.lora.adapter is 'nowhere': no such directory"),
        ('{ adapter = "." }', "adapter_config.json: no such file"),
    ],
)
def test_a_slip_is_found_before_anything_runs(recipe, tmp_path, lora, message):
    with pytest.raises(InputError, match=message):
        run_recipe(recipe, [f"sft.lora={lora}"], out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_dropout_is_not_left_out_in_silence(recipe, straight, tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    for file in (straight / "checkpoints" / "sft" / "adapter").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_dropout": 0.1}))
    with pytest.raises(InputError, match=r"trained with lora_dropout = 0.1; there is no dropout here"):
        run_recipe(recipe, [f'sft.lora={{ adapter = "{folder}" }}'], out=tmp_path / "run", device="cpu")


def test_the_manual_s_tables_are_recipes():
    """docs/adapters.md: what it shows is read, and the defaults are those that it names."""
    text = (Path(__file__).parents[2] / "docs" / "adapters.md").read_text(encoding="utf-8")
    whole, later = re.findall(r"```toml\n(.*?)\n```", text, flags=re.DOTALL)
    stage = parse_recipe(tomllib.loads('name = "x"\n' + whole), "docs/adapters.md").stages["sft"]
    assert stage.lora.targets == ["q_proj", "k_proj", "v_proj", "o_proj"]
    again = whole[: whole.index("start")] + later + "\ndata = [{ path = 'x' }]"
    lora = parse_recipe(tomllib.loads('name = "x"\n' + again), "docs/adapters.md").stages["sft"].lora
    assert lora.adapter == "runs/mine/checkpoints/sft/adapter"
    for key in Lora.model_fields:
        assert f"| `{key}` |" in text
    assert (Lora().rank, Lora().alpha, Lora().rslora, Lora().targets) == (16, 32.0, False, ["all-linear"])
