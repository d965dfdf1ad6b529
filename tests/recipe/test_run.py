"""Runs as a whole: the same twice, refused when recipe or machine changed, forked where they differ."""

import shutil
from pathlib import Path

import pytest
import torch

import clearseek.recipe.run
from clearseek.config.errors import InputError, RunError
from clearseek.config.load import load_recipe
from clearseek.config.progress import SilentProgress
from clearseek.ledger.log import read, verify
from clearseek.model.checkpoint import load_model
from clearseek.recipe.run import run_recipe
from clearseek.tasks.registry import generate
from clearseek.train.optimizer import Optimizer
from tests.recipe.tiny_run import contents, kill_at, run_in_child, write_recipe


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy of the finished run to do things to."""
    return shutil.copytree(finished, tmp_path / "tiny")


def kinds(run_dir):
    return [(record["kind"], record.get("stage")) for record in read(run_dir / "ledger.jsonl")]


def test_two_runs_are_the_same_to_the_byte(recipe, finished, tmp_path):
    """T20."""
    assert run_in_child(recipe, tmp_path / "again") is None
    assert contents(tmp_path / "again") == contents(finished)


def test_another_seed_is_another_run(recipe, finished, tmp_path):
    assert run_in_child(recipe, tmp_path / "other", overrides=["seed=2"]) is None
    weights = [load_model(path / "checkpoints" / "rl") for path in (finished, tmp_path / "other")]
    assert not torch.equal(weights[0].embedding.weight, weights[1].embedding.weight)


def test_a_run_says_where_int8_is_not_to_be_had(recipe, tmp_path):
    class Notes(SilentProgress):
        def note(self, text):
            notes.append(text)

    notes = []
    overrides = ["pretrain.linear_dtype=int8", "pretrain.tokens=400", "rl.steps=1"]
    run_recipe(recipe, overrides, out=tmp_path / "tiny", device="cpu", progress=Notes())
    assert [note for note in notes if "int8" in note] == [
        "pretrain: linear layers learn in float32, not in int8 "
        "(no kernels: they compute in bfloat16 on a CPU, not in float32 on cpu)"
    ]


def test_a_run_leaves_what_the_next_commands_read(finished):
    assert verify(finished / "ledger.jsonl").num_lines > 20
    assert (finished / "report.html").stat().st_size > 1000
    assert (finished / "report.json").is_file()
    assert load_model(finished / "checkpoints" / "rl").config.num_mtp_layers == 1
    stages = [stage for kind, stage in kinds(finished) if kind == "stage_finished"]
    assert stages == ["tokenizer", "pretrain", "rl"]
    assert not list(finished.rglob("*partial*"))


def test_every_stage_names_its_parents_by_hash(finished):
    records = read(finished / "ledger.jsonl")
    left = {
        record["stage"]: {output["name"]: output["sha256"] for output in record["outputs"]}
        for record in records
        if record["kind"] == "stage_finished"
    }
    parents = {r["stage"]: r["parents"] for r in records if r["kind"] == "stage_started"}
    assert parents["pretrain"] == [{"stage": "tokenizer", "sha256": left["tokenizer"]["tokenizer.json"]}]
    assert parents["rl"] == [{"stage": "pretrain", "sha256": left["pretrain"]["model.safetensors"]}]


def test_training_and_examination_do_not_overlap(recipe, finished):
    """T16, as the run itself says and as counted here."""
    records = read(finished / "ledger.jsonl")
    overlaps = [record["train_held_out_overlap"] for record in records if record["kind"] == "data"]
    assert overlaps == [0] * len(overlaps)
    chosen = load_recipe(Path(recipe)).evaluation.problems
    held_out = generate(chosen.tasks, chosen.languages, chosen.levels, 4, 1, "held_out", "evaluation")
    asked = {record["problem_id"] for record in read(finished / "samples.jsonl")}
    assert asked <= {problem.id for problem in held_out}


# Recipes that changed


def test_a_changed_recipe_is_refused_with_the_difference(recipe, run_dir):
    before = contents(run_dir)
    with pytest.raises(InputError, match=r"started with another recipe: stages\.rl\.steps: 3 → 4.*--fork"):
        run_recipe(recipe, ["rl.steps=4"], out=run_dir, device="cpu")
    assert contents(run_dir) == before


def test_every_change_is_shown(recipe, run_dir):
    with pytest.raises(InputError) as raised:
        run_recipe(
            recipe, ["seed=2", "rl.group_size=4", "rl.retire_pass_rate=0.5"], out=run_dir, device="cpu"
        )
    for difference in (
        "seed: 1 → 2",
        "stages.rl.group_size: 3 → 4",
        "stages.rl.retire_pass_rate: null → 0.5",
    ):
        assert difference in str(raised.value)


def test_a_fork_takes_over_the_stages_before_the_change(recipe, run_dir):
    before = contents(run_dir)
    assert run_in_child(recipe, run_dir, overrides=["rl.steps=2"], fork=True) is None
    assert contents(run_dir) == before
    forked = run_dir.with_name("tiny-2")
    found = contents(forked)
    for name, data in before.items():
        if name.startswith(("checkpoints/tokenizer/", "checkpoints/pretrain/")):
            assert found[name] == data
    begun = [stage for kind, stage in kinds(forked) if kind == "stage_started"]
    assert begun == ["tokenizer", "pretrain", "rl"]
    assert len([1 for kind, stage in kinds(forked) if (kind, stage) == ("step", "rl")]) == 2
    assert len([kind for kind, _ in kinds(forked) if kind == "run"]) == 2
    verify(forked / "ledger.jsonl")
    verify(forked / "samples.jsonl")


def test_a_fork_of_another_seed_starts_over(recipe, run_dir):
    assert run_in_child(recipe, run_dir, overrides=["seed=2"], fork=True) is None
    forked = kinds(run_dir.with_name("tiny-2"))
    assert forked[0][0] == "fork"
    assert len([kind for kind, _ in forked if kind == "run"]) == 1


def test_a_fork_of_a_run_that_never_began_has_no_original(recipe, run_dir):
    (run_dir / "ledger.jsonl").unlink()
    assert run_in_child(recipe, run_dir, overrides=["seed=2"], fork=True) is None
    assert "fork" not in {kind for kind, _ in kinds(run_dir.with_name("tiny-2"))}


def test_a_fork_of_a_changed_ledger_is_refused_before_anything_is_made(recipe, run_dir):
    ledger = run_dir / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b'"step":2,', b'"step":3,', 1))
    with pytest.raises(RunError, match="does not follow from the line before it"):
        run_recipe(recipe, ["seed=2"], out=run_dir, device="cpu", fork=True)
    assert not run_dir.with_name("tiny-2").exists()


def test_a_fork_that_only_adds_a_stage_keeps_every_sample(recipe, run_dir, tmp_path):
    longer = write_recipe(tmp_path, Path(recipe).read_text() + '[stages.look]\nkind = "eval"\nstart = "rl"\n')
    assert run_in_child(longer, run_dir, fork=True) is None
    old, new = (read(path / "samples.jsonl") for path in (run_dir, run_dir.with_name("tiny-2")))
    assert new[: len(old)] == old
    assert len(new) > len(old)


def test_a_fork_of_an_unchanged_recipe_is_the_run_itself(recipe, run_dir):
    assert run_recipe(recipe, out=run_dir, device="cpu", fork=True).run_dir == run_dir


# Machines that changed, directories that are something else


def say_two_threads():
    """Only said: a forked process can't have the threads that its parent had."""
    torch.get_num_threads = lambda: 2
    torch.set_num_threads = lambda count: None


def test_a_stage_is_not_continued_on_another_machine(recipe, tmp_path):
    """Its numbers would differ in the last bits; a stage begun anew may run anywhere."""
    out = tmp_path / "run"
    assert run_in_child(recipe, out, kill_at(Optimizer, "step", 5)) == "killed"
    error = run_in_child(recipe, out, say_two_threads)
    assert "stage pretrain was begun otherwise: threads: 1 → 2" in error


def test_only_the_first_line_tells_the_format(recipe, run_dir):
    told = [record.get("format") for record in read(run_dir / "ledger.jsonl")]
    assert told[0] == 1
    assert set(told[1:]) == {None}


def say_other_code():
    clearseek.recipe.run.code_sha256 = lambda: "0" * 64


def test_a_stage_is_not_continued_by_other_code(recipe, tmp_path):
    out = tmp_path / "run"
    assert run_in_child(recipe, out, kill_at(Optimizer, "step", 5)) == "killed"
    error = run_in_child(recipe, out, say_other_code)
    assert "stage pretrain was begun otherwise: code_sha256: " in error


def test_a_run_goes_on_elsewhere_between_stages(recipe, tmp_path):
    from clearseek.recipe.run import Run

    out = tmp_path / "run"
    assert run_in_child(recipe, out, kill_at(Run, "_drop_resume_points", 2)) == "killed"
    assert run_in_child(recipe, out, say_two_threads) is None
    threads = [record["threads"] for record in read(out / "ledger.jsonl") if record["kind"] == "run"]
    assert threads == [1, 2]


def test_a_directory_of_something_else_is_left_alone(recipe, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds files but no run; give another --out"):
        run_recipe(recipe, out=tmp_path, device="cpu")


def test_a_kill_before_the_recipe_was_written_leaves_nothing_in_the_way(recipe, tmp_path):
    out = tmp_path / "run"
    out.mkdir()
    (out / ".recipe.toml.partial").write_text("name =")
    assert run_in_child(recipe, out) is None
