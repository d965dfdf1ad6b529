"""What a user may give as MODEL, and what a wrong one is told."""

import json

import pytest

from clearseek.config.errors import InputError
from clearseek.model.checkpoint import resolve_model


def make_model(path):
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"")
    return path


def make_run(path, finished, result=None):
    path.mkdir()
    lines = [{"line": 0, "kind": "run", "result": result}]
    for stage in finished:
        lines += [{"kind": "stage_started", "stage": stage}, {"kind": "stage_finished", "stage": stage}]
    (path / "ledger.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_model_directory_is_itself(tmp_path):
    assert resolve_model(make_model(tmp_path / "hf")) == tmp_path / "hf"
    sharded = make_model(tmp_path / "sharded")
    (sharded / "model.safetensors").rename(sharded / "model.safetensors.index.json")
    assert resolve_model(sharded) == sharded


def test_a_run_is_its_newest_finished_model(tmp_path):
    """By the ledger's order, not by name or time; stages without a model are passed over."""
    run = make_run(tmp_path / "run", finished=["pretrain", "sft", "reject", "evaluation"])
    for stage in ("sft", "pretrain", "zz-unfinished"):
        make_model(run / "checkpoints" / stage)
    make_model(run / "checkpoints" / "rl.partial" / "step-000100")
    assert resolve_model(run) == run / "checkpoints" / "sft"
    assert resolve_model(run / "checkpoints" / "pretrain") == run / "checkpoints" / "pretrain"
    resume_point = run / "checkpoints" / "rl.partial" / "step-000100"
    assert resolve_model(resume_point) == resume_point


def test_a_run_is_the_stage_that_its_recipe_calls_final(tmp_path):
    """Not the student that is distilled after it; until it is there, the newest."""
    run = make_run(tmp_path / "run", finished=["sft", "rl", "student"], result="rl")
    for stage in ("sft", "student"):
        make_model(run / "checkpoints" / stage)
    assert resolve_model(run) == run / "checkpoints" / "student"
    make_model(run / "checkpoints" / "rl")
    assert resolve_model(run) == run / "checkpoints" / "rl"


def test_a_torn_last_line_of_the_ledger_is_passed_over(tmp_path):
    run = make_run(tmp_path / "run", finished=["pretrain"])
    make_model(run / "checkpoints" / "pretrain")
    make_model(run / "checkpoints" / "sft")
    with (run / "ledger.jsonl").open("a") as ledger:
        ledger.write('{"kind": "stage_finished", "stage": "sf')
    assert resolve_model(run) == run / "checkpoints" / "pretrain"


def test_a_run_without_a_model_says_how_far_it_is(tmp_path):
    run = make_run(tmp_path / "run", finished=["tokenizer"])
    with pytest.raises(
        InputError, match=r"no finished model in .*checkpoints \(finished stages: tokenizer\)"
    ):
        resolve_model(run)
    empty = make_run(tmp_path / "empty", finished=[])
    with pytest.raises(InputError, match=r"none of its stages is finished\); continue the run"):
        resolve_model(empty)


def test_anything_else_is_told_what_was_looked_for(tmp_path):
    with pytest.raises(InputError, match=r"absent: no such directory; give a run, one of its checkpoints or"):
        resolve_model(tmp_path / "absent")
    with pytest.raises(
        InputError, match=r"neither a run \(no ledger.jsonl\) nor a model \(no config.json and no model"
    ):
        resolve_model(tmp_path)
    file = make_model(tmp_path / "hf") / "model.safetensors"
    with pytest.raises(InputError, match=r"model\.safetensors: is a file; give the directory"):
        resolve_model(file)
    file.unlink()
    with pytest.raises(InputError, match=r"nor a model \(no model\.safetensors\)"):
        resolve_model(tmp_path / "hf")
