"""Every wrong input is one clear line that names the place, exit code 2 or 1, and nothing written is lost."""

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from clearseek.cli.main import main
from clearseek.tasks import gym
from clearseek.tasks.problem import Problem
from clearseek.text.tokenizer import Tokenizer
from tests.recipe.bases import make_base
from tests.recipe.tiny_run import RECIPE, contents, run_in_child, write_recipe


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """Run the tiny recipe with changes through the command line; gives exit code and the line on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(text=RECIPE, *overrides, out="run"):
        path = write_recipe(tmp_path, text)
        settings = [word for override in overrides for word in ("-s", override)]
        code = main(["run", path, "--out", str(tmp_path / out), "--device", "cpu", *settings])
        shown, said = capsys.readouterr()
        assert shown == ""
        assert "Traceback" not in said
        errors = [line for line in said.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1, said
        return code, errors[0]

    return call


def lines(*rows):
    return "\n".join(json.dumps(row) if isinstance(row, dict) else row for row in rows)


# The recipe itself: refused before anything is written


WRONG_VALUES = [
    ("sede=2", "unknown key sede; did you mean 'seed'?"),
    ("pretrain.tokns=5", "unknown key stages.pretrain.tokns; did you mean 'tokens'?"),
    (
        "pretrain.optimizer.learning_rat=0.1",
        "unknown key stages.pretrain.optimizer.learning_rat; did you mean",
    ),
    ("rl.problems.task=['digits']", "unknown key stages.rl.problems.task; did you mean 'tasks'?"),
    ("evaluation.sample=3", "unknown key evaluation.sample; did you mean 'samples'?"),
    ("models.teacher.hiden_size=8", "unknown key models.teacher.hiden_size; did you mean 'hidden_size'?"),
    ("models.teacher.value_scale=2.0", "models.teacher: value_scale = 2.0: family deepseek_v3 has only 1.0"),
    ("pretrian.tokens=5", "no stage 'pretrian'; did you mean 'pretrain'?"),
    ("pretrain.tokens", "override 'pretrain.tokens' is not of the form stage.key=value"),
    ("pretrain.tokens='many'", "stages.pretrain.tokens = 'many': input should be a valid integer"),
    ("pretrain.tokens=0", "stages.pretrain.tokens = 0: input should be greater than 0"),
    ("pretrain.micro_batch_rows=1.5", "stages.pretrain.micro_batch_rows = 1.5: "),
    ("seed=-1", "seed = -1: input should be greater than or equal to 0"),
    ("pretrain.kind='pretrian'", "stages.pretrain.kind must be one of tokenizer, pretrain, sft"),
    ("rl.group_size=1", "stages.rl.group_size = 1: input should be greater than or equal to 2"),
    ("rl.policy_loss='ppo'", "stages.rl.policy_loss = 'ppo': input should be 'reinforce', 'clip'"),
    ("rl.sft_weight=0", "sft_weight and sft_data belong together"),
    ("models.teacher.qk_rope_head_dim=7", "rotary size (7) must be even"),
    (
        "models.teacher.num_experts_per_token=5",
        "num_experts_per_token (5) must be between 1 and num_routed_expe",
    ),
    ("models.teacher.num_heads=0", "models.teacher.num_heads = 0: "),
    (
        "pretrain.linear_dtype='int4'",
        "stages.pretrain.linear_dtype = 'int4': input should be 'auto' or 'int8'",
    ),
    ("rl.linear_dtype='int8'", "unknown key stages.rl.linear_dtype"),
    ("models.teacher.head_dim=8", "head_dim belongs to grouped-query attention"),
    (
        "models.teacher.max_position_embeddings=79",
        "stages.pretrain.sequence_length (80) does not fit the context of 'teacher': its max_position_embeddings is 79",
    ),
    (
        "rl.max_completion_tokens=4096",
        "stages.rl.max_completion_tokens (4096) does not fit the context of 'pretrain'",
    ),
    (
        "evaluation.max_completion_tokens=4096",
        "evaluation.max_completion_tokens (4096) does not fit the context of 'teacher'",
    ),
    (
        "models.teacher.vocab_size=100",
        "models.teacher.vocab_size (100) is smaller than the tokenizer's (320)",
    ),
    (
        "rl.start='pretrian'",
        "stages.rl.start is 'pretrian': no model, stage or directory of that name; did you",
    ),
    ("rl.start='tokenizer'", "stages.rl.start is 'tokenizer', a tokenizer stage, which leaves no model"),
    ("pretrain.start='rl'", "stages.pretrain.start is 'rl', which comes later; put it first"),
    (
        "pretrain.tokenizer='rl'",
        "stages.pretrain.tokenizer is 'rl': no earlier tokenizer stage and no directory",
    ),
    ("final='best'", "final is 'best', which is no earlier stage"),
    (
        "rl.problems.tasks=['digitz']",
        "stages.rl.problems: tasks: unknown family 'digitz'; did you mean 'digits'?",
    ),
    (
        "rl.problems.languages=['fr']",
        "stages.rl.problems.languages.0 = 'fr': input should be 'en', 'ko' or 'zh'",
    ),
    ("rl.problems.levels=[9]", "stages.rl.problems: tasks: no family asked for has level [9]"),
    ("rl.sft_data=[{path='no.jsonl'}]", "stages.rl.sft_data[0].path is 'no.jsonl': no such file or folder"),
    (
        "rl.sft_data=[{stage='pretrain'}]",
        "stages.rl.sft_data[0].stage is 'pretrain', which leaves no examples",
    ),
    ("rl.sft_data=[{path='a', stage='rl'}]", "needs exactly one of problems, path, dataset and stage"),
    ("rl.sft_data=[{stage='rl', ignored_fields=['id']}]", "ignored_fields belongs to path and dataset"),
    ("rl.sft_data=[{problems={path='a'}, count=2}]", "problems of a data source are generated: give tasks"),
    ("rl.sft_data=[{stage='rl', teacher='DeepSeek-R1'}]", "teacher belongs to path and dataset"),
    ("rl.problems={path='no.jsonl'}", "stages.rl.problems.path is 'no.jsonl': no such file"),
    ("evaluation.problems={path='no.jsonl'}", "evaluation.problems.path is 'no.jsonl': no such file"),
]


@pytest.mark.parametrize(("override", "message"), WRONG_VALUES)
def test_a_wrong_recipe_is_refused(run, tmp_path, override, message):
    code, error = run(RECIPE, override)
    assert code == 2
    assert message in error
    if "vocab_size" not in override:  # only known once the tokenizer is there
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rl.sft_data=[{dataset='org/name'}]", "stages.rl.sft_data[0] needs an extra to be read: pip install 'cl"),
        ("rl.sft_data=[{path='own.parquet'}]", "stages.rl.sft_data[0] needs an extra to be read: pip install 'cl"),
        ("rl.problems={gym=['leg_counting']}", "stages.rl.problems.gym: "),
    ],
)  # fmt: skip
def test_an_extra_that_is_missing_is_told_before_anything_runs(run, tmp_path, monkeypatch, override, message):
    monkeypatch.setattr("clearseek.recipe.check.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    gym._dataset.cache_clear()
    (tmp_path / "own.parquet").touch()
    code, error = run(RECIPE, override)
    assert code == 2
    assert message in error
    assert "pip install 'clearseek[" in error
    assert not (tmp_path / "run").exists()


def test_what_is_not_toml_is_refused(run):
    code, error = run("name = 'x\n")
    assert code == 2
    assert "is not valid TOML" in error


def test_a_recipe_that_is_not_there_names_the_nearest(capsys):
    assert main(["run", "smok"]) == 2
    assert (
        capsys.readouterr().err
        == "error: no recipe at smok, and none of that name comes with clearseek; did you mean smoke?\n"
    )


# Users' own data


SFT = """
[stages.own]
kind = "sft"
start = "pretrain"
data = [{ path = "own.jsonl" }]
"""
OWN_RL = 'rl.problems={path="own.jsonl"}'


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "1 + 1?"}], "own.jsonl:1: missing field 'answer'; each line needs prompt and answer"),
        (
            [{"prompt": "1?", "answer": "1"}, {"prompt": "2?", "anser": "2"}],
            "own.jsonl:2: unknown field 'anser'; did",
        ),
        ([{"prompt": "1?", "answer": "1", "verifier": "nmber"}], "own.jsonl:1: "),
        (["{"], "own.jsonl:1: not valid JSON"),
        ([""], "own.jsonl: holds no problems"),
        ([{"prompt": "1?", "answer": "1"}], "too few to keep one in eight"),
    ],
)
def test_problems_that_cannot_be_read_name_the_line(run, tmp_path, rows, message):
    (tmp_path / "own.jsonl").write_text(lines(*rows))
    code, error = run(RECIPE, OWN_RL)
    assert code == 2
    assert message in error


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"prompt": "1 + 1?", "thought": "so"}], "own.jsonl"),
        ([{"prompt": "1?", "answer": "1"}, "{"], "own.jsonl"),
        ([""], "own.jsonl"),
    ],
)
def test_examples_that_cannot_be_read_name_the_file(run, tmp_path, rows, message):
    (tmp_path / "own.jsonl").write_text(lines(*rows))
    code, error = run(RECIPE + SFT)
    assert code == 2
    assert message in error


def test_a_foreign_field_is_refused_until_it_is_named(run, tmp_path):
    (tmp_path / "own.jsonl").write_text(lines({"prompt": "1 + 1?", "answer": "2", "id": "7"}))
    code, error = run(RECIPE + SFT)
    assert code == 2
    assert "own.jsonl line 1: unknown field 'id'; name it in ignored_fields to leave it out" in error
    named = SFT.replace('"own.jsonl"', f'"{tmp_path}/own.jsonl", ignored_fields = ["id"]')
    assert run_in_child(write_recipe(tmp_path, RECIPE + named), tmp_path / "named") is None


def test_prompts_longer_than_a_row_name_the_setting(run, tmp_path):
    rows = [{"prompt": "count " * 80 + f"{i}?", "answer": str(i), "verifier": "number"} for i in range(40)]
    (tmp_path / "own.jsonl").write_text(lines(*rows))
    code, error = run(RECIPE, OWN_RL)
    assert code == 2
    assert "more than sequence_length (96); raise it or lower max_completion_tokens" in error


def steps_of(tmp_path, stage):
    records = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
    return [record["step"] for record in records if (record["kind"], record.get("stage")) == ("step", stage)]


def with_a_long_one(path, count=40):
    """Problems of which the last is a long one; its line."""
    rows = [{"prompt": f"{i} + 1?", "answer": str(i + 1), "verifier": "number"} for i in range(count)]
    tried = ({"prompt": f"add {i} " * 400, "answer": "1"} for i in range(100))
    wanted = next(row for row in tried if not Problem("user", "en", 1, *row.values(), "exact").held_out)
    path.write_text(lines(*rows, "", wanted))
    return count + 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("rl.sequence_length=96", "more than sequence_length (96); raise it or lower max_completion_tokens"),
        (
            "models.teacher.max_position_embeddings=90",
            "more than the model's context (90); lower max_completion_tokens",
        ),
    ],
)
def test_one_problem_that_is_too_long_is_told_before_a_step_is_paid_for(run, tmp_path, setting, message):
    line = with_a_long_one(tmp_path / "own.jsonl")
    code, error = run(RECIPE, OWN_RL, setting)
    assert code == 2
    assert f"stages.rl.problems: own.jsonl:{line}: the prompt holds " in error
    assert message in error
    assert error.endswith("or shorten the problem or leave it out")
    assert steps_of(tmp_path, "pretrain") != steps_of(tmp_path, "rl") == []


def test_a_held_out_problem_that_is_too_long_is_told_before_the_stage_is_trained(run, tmp_path):
    line = with_a_long_one(tmp_path / "own.jsonl", 3)
    held_out = 'evaluation.problems={path="own.jsonl", held_out_path="own.jsonl"}'
    code, error = run(RECIPE, held_out, "models.teacher.max_position_embeddings=90")
    assert code == 2
    assert f"evaluation.problems: own.jsonl:{line}: the prompt holds " in error
    assert steps_of(tmp_path, "pretrain") == []


# Checkpoints that are not what they should be


OWN_BASE = """
name = "own"
dtype = "float32"
compile = false
[evaluation]
count = 2
max_completion_tokens = 4
problems = { tasks = ["digits"], levels = [1] }
[stages.look]
kind = "eval"
start = "base"
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_base(tmp_path_factory.mktemp("base") / "base", ["1 + 1 = 2, one and one is two"] * 9)


@pytest.fixture
def base(made, tmp_path):
    return shutil.copytree(made, tmp_path / "base")


def test_a_truncated_checkpoint(run, base):
    weights = base / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    code, error = run(OWN_BASE)
    assert code == 1
    assert "base/model.safetensors: torn or not a safetensors file" in error
    assert "copy or download it again" in error


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("hidden_size", 64, "model.embed_tokens.weight is [278, 32], but config.json makes it [278, 64]"),
        ("num_hidden_layers", 3, "missing that config.json asks for"),
        ("num_hidden_layers", 1, "left over that config.json has no place for"),
        (
            "architectures",
            ["Gpt9ForCausalLM"],
            "architecture 'Gpt9ForCausalLM' is not known; known ones: Deep",
        ),
        ("model_type", "gpt_oss", "and model_type 'gpt_oss' differ"),
    ],
)
def test_a_checkpoint_of_another_shape(run, base, field, value, message):
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {field: value}))
    code, error = run(OWN_BASE)
    assert code == 2
    assert message in error


def test_a_tokenizer_of_another_model(run, base, tmp_path):
    make_base(
        tmp_path / "other", [f"{chr(97 + i)}{chr(97 + j)} word" for i in range(26) for j in range(26)], 400
    )
    shutil.copy(tmp_path / "other" / "tokenizer.json", base / "tokenizer.json")
    code, error = run(OWN_BASE)
    assert code == 2
    assert "tokens, the model at 'base' only 278; give the tokenizer that the model was trained with" in error


def test_a_tokenizer_of_the_same_size_but_other_tokens(run, base, tmp_path):
    own = Tokenizer.load(base)
    other = Tokenizer.train(["count the words and the letters of words"] * 9, own.vocab_size)
    assert other.vocab_size <= own.vocab_size
    other.save(tmp_path / "other")
    look = """
[stages.look]
kind = "reject"
start = "base"
tokenizer = "other"
count = 2
problems = { tasks = ["digits"], levels = [1] }
"""
    code, error = run(OWN_BASE[: OWN_BASE.index("[stages.look]")] + look)
    assert code == 2
    assert (
        "stages.look.tokenizer is 'other', whose tokens are not those that the model at 'base' was" in error
    )
    code, error = run(
        OWN_BASE[: OWN_BASE.index("[stages.look]")] + look.replace('"other"', '"base"'), out="2"
    )
    assert "whose tokens" not in error


def test_a_directory_that_holds_no_model(run, tmp_path):
    (tmp_path / "base").mkdir()
    code, error = run(OWN_BASE)
    assert code == 2
    assert "base: is neither a run" in error


def test_a_model_without_a_tokenizer(run, base):
    (base / "tokenizer.json").unlink()
    code, error = run(OWN_BASE)
    assert code == 2
    assert "tokenizer.json" in error


# Disks and files that fail while running: nothing written is lost


def full_disk(owner, name, call):
    """Let the `call`-th call of `owner.name` find the disk full."""

    def prepare():
        original, calls = getattr(owner, name), [0]

        def refuse(*arguments, **keywords):
            calls[0] += 1
            if calls[0] == call:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "here")
            return original(*arguments, **keywords)

        setattr(owner, name, refuse)

    return prepare


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    assert run_in_child(write_recipe(folder), folder / "run") is None
    return contents(folder / "run")


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (full_disk(os, "write", 12), "could not be written (the disk is full)"),
        (full_disk(Path, "write_text", 8), "No space left on device"),
        (full_disk(os, "fsync", 9), ""),
        (full_disk(os, "replace", 3), "the seal could not be written"),
        (full_disk(os, "replace", 5), "disk full while writing"),
    ],
    ids=["in the ledger", "in the kept samples", "at a sync", "at the seal", "at a checkpoint"],
)
def test_a_full_disk_stops_the_run_and_loses_nothing(expected, tmp_path, prepare, message):
    recipe, out = write_recipe(tmp_path), tmp_path / "run"
    error = run_in_child(recipe, out, prepare)
    assert error is not None
    assert error.splitlines()[-1].startswith("clearseek.config.errors.RunError: ")
    assert message in error
    assert run_in_child(recipe, out) is None
    assert contents(out) == expected


def test_a_torn_resume_point_says_which_one_to_fall_back_on(expected, tmp_path):
    from tests.recipe.moments import MOMENTS

    recipe, out = write_recipe(tmp_path), tmp_path / "run"
    assert run_in_child(recipe, out, MOMENTS["between two updates of a batch"]) == "killed"
    points = sorted(out.glob("checkpoints/*.partial/step-*"))
    os.truncate(points[-1] / "state.safetensors", 100)
    error = run_in_child(recipe, out)
    assert f"{points[-1].name}: not a whole resume point" in error
    shutil.rmtree(points[-1])
    assert run_in_child(recipe, out) is None
    assert contents(out) == expected


def test_a_ledger_that_was_changed_by_hand_is_named(run, tmp_path):
    recipe, out = write_recipe(tmp_path), tmp_path / "run"
    assert run_in_child(recipe, out) is None
    path = out / "ledger.jsonl"
    path.write_bytes(path.read_bytes().replace(b'"seed":1', b'"seed":2'))
    code, error = run()
    assert code == 1
    assert "ledger.jsonl: line 1 does not follow from the line before it" in error


def test_a_changed_recipe_is_refused_on_the_command_line(run, tmp_path):
    recipe, out = write_recipe(tmp_path), tmp_path / "run"
    assert run_in_child(recipe, out) is None
    code, error = run(RECIPE, "rl.steps=9")
    assert code == 2
    assert "was started with another recipe: stages.rl.steps: 3 → 9" in error
