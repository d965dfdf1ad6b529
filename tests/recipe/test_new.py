"""`clearseek new`: a recipe that runs, chosen by what the user brings, or one clear reason why not."""

import json
from pathlib import Path

import pytest

from clearseek.config.errors import InputError
from clearseek.config.load import load_recipe
from clearseek.config.lora import Lora
from clearseek.ledger.log import read
from clearseek.recipe.new import new_recipe
from clearseek.recipe.plan import plan_recipe
from clearseek.recipe.run import run_recipe
from clearseek.text.tokenizer import Tokenizer
from tests.recipe.bases import make_base

LINES = [{"prompt": f"What is {n} + 1?", "answer": str(n + 1), "verifier": "number"} for n in range(60)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base"), [line["prompt"] for line in LINES])


@pytest.fixture
def data(tmp_path):
    return write(tmp_path / "problems.jsonl", LINES)


def write(path, lines):
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return path


def test_what_it_writes_can_be_planned_and_run(tmp_path, base, data, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = new_recipe("mine", base=base, data=data)
    assert path == Path("mine.toml")
    overrides = ["rl.steps=1", "rl.problems_per_step=2", "rl.group_size=2", "rl.max_completion_tokens=8"]
    overrides += ["evaluation.count=2", "evaluation.max_completion_tokens=8", "compile=false"]
    assert plan_recipe(load_recipe(path, overrides)).seconds > 0
    result = run_recipe(str(path), overrides, device="cpu")
    assert result.run_dir == Path("runs/mine")
    stages = [r["stage"] for r in read(result.run_dir / "ledger.jsonl") if r["kind"] == "stage_finished"]
    assert stages == ["before", "rl"]


def test_an_adapter_learns_where_it_is_asked_for(tmp_path, base, data):
    full = load_recipe(new_recipe("mine", base=base, data=data, out=tmp_path / "full.toml")).stages["rl"]
    path = new_recipe("mine", base=base, data=data, out=tmp_path / "lora.toml", lora=True)
    stage = load_recipe(path).stages["rl"]
    assert full.lora is None
    assert stage.lora == Lora(rank=16, alpha=32.0, targets=["all-linear"])
    assert stage.optimizer.learning_rate == pytest.approx(10 * full.optimizer.learning_rate)
    small = ["rl.steps=1", "rl.problems_per_step=2", "rl.group_size=2", "rl.max_completion_tokens=8"]
    small += ["evaluation.count=2", "evaluation.max_completion_tokens=8", "compile=false"]
    run = run_recipe(str(path), small, out=tmp_path / "run", device="cpu").run_dir
    assert (run / "checkpoints" / "rl" / "adapter" / "adapter_model.safetensors").is_file()


def test_the_defaults_fit_model_and_problems(tmp_path, base, data):
    recipe = load_recipe(new_recipe("mine", base=base, data=data, out=tmp_path / "r.toml"))
    stage, tokenizer = recipe.stages["rl"], Tokenizer.load(base)
    chats = [tokenizer.encode_chat([{"role": "user", "content": line["prompt"]}]) for line in LINES]
    assert stage.max_completion_tokens == recipe.evaluation.max_completion_tokens == 96
    assert stage.sequence_length >= max(map(len, chats)) + 96
    assert stage.sequence_length < max(map(len, chats)) + 96 + 32
    assert stage.optimizer.learning_rate == pytest.approx(3e-4)
    assert 20 <= stage.steps <= 200
    assert stage.problems.path == str(data)
    assert recipe.evaluation.count < len(LINES)


def test_a_short_context_leaves_a_small_budget(tmp_path, data):
    texts = [line["prompt"] for line in LINES]
    base = make_base(tmp_path / "base", texts, context=48)
    stage = load_recipe(new_recipe("mine", base=base, data=data, out=tmp_path / "r.toml")).stages["rl"]
    assert stage.max_completion_tokens < 48


def test_little_memory_gives_small_micro_batches(tmp_path, base, data, monkeypatch):
    monkeypatch.setattr("clearseek.recipe.new.memory_bytes", lambda: 1.72e9)
    stage = load_recipe(new_recipe("mine", base=base, data=data, out=tmp_path / "r.toml")).stages["rl"]
    assert stage.micro_batch_rows < 32


def test_gsm8k_s_layout_and_korean_paths_are_taken(tmp_path, base):
    lines = [{"question": f"{n}개와 1개는?", "answer": f"더하면\n#### {n + 1}"} for n in range(40)]
    data = write(tmp_path / "문제.jsonl", lines)
    recipe = load_recipe(new_recipe("mine", base=base, data=data, out=tmp_path / "r.toml"))
    assert recipe.stages["rl"].problems.path == str(data)


@pytest.mark.parametrize("name", ["", "a/b", "-x", "two words"])
def test_a_name_that_is_no_name_is_refused(base, data, name):
    with pytest.raises(InputError, match="name"):
        new_recipe(name, base=base, data=data)


def test_a_recipe_that_is_there_is_not_overwritten(tmp_path, base, data):
    path = tmp_path / "mine.toml"
    path.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        new_recipe("mine", base=base, data=data, out=path)
    assert path.read_text() == "mine"


def test_a_missing_model_is_named(tmp_path, data):
    with pytest.raises(InputError, match="nowhere: no such directory"):
        new_recipe("mine", base=tmp_path / "nowhere", data=data, out=tmp_path / "r.toml")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([*LINES[:9], {"prompt": "What?"}], r"problems.jsonl:10: missing field 'answer'"),
        ([{**LINES[0], "verifer": "number"}], "did you mean 'verifier'"),
        ([{**LINES[0], "answer": "six", "verifier": "number"}], "cannot read the answer 'six'"),
        (LINES[:1], "1 problems are too few"),
        ([], "holds no problems"),
    ],
)
def test_the_first_thing_wrong_with_the_problems_is_named(tmp_path, base, lines, message):
    data = write(tmp_path / "problems.jsonl", lines)
    with pytest.raises(InputError, match=message):
        new_recipe("mine", base=base, data=data, out=tmp_path / "r.toml")
    assert not (tmp_path / "r.toml").exists()


def test_prompts_beyond_the_context_are_refused_with_both_numbers(tmp_path, data):
    base = make_base(tmp_path / "base", [line["prompt"] for line in LINES], context=20)
    with pytest.raises(InputError, match=r"longest prompt has \d+ tokens, the context of .* holds 20"):
        new_recipe("mine", base=base, data=data, out=tmp_path / "r.toml")
