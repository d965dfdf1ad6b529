"""Evaluations computed again: the same to the bit, wherever a run examines; and whatever was changed is named."""

import json
import shutil

import pytest

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.lines import file_sha256
from clearseek.ledger.log import read
from clearseek.model.stored import load_tensors, save_tensors
from clearseek.recipe.recorded import read_run
from clearseek.recipe.replay_evaluation import replay_evaluations
from tests.recipe.replayed_run import NOTES, rewrite
from tests.recipe.tiny_run import RECIPE, run_in_child, write_recipe

STAGES = """
[stages.sft]
kind = "sft"
start = "rl"
data = [{{ path = "{notes}", hold_out_every = 4 }}]
batch_rows = 2
sequence_length = 48
evaluate = false

[stages.look]
kind = "eval"
start = "rl"

[stages.look.evaluation]
count = 3
samples = 2
temperature = 0.8
max_completion_tokens = 4
probes = 1
problems = {{ tasks = ["digits"], levels = [1, 2], languages = ["en"] }}
"""
EXAMINED = [
    ("pretrain", 3),
    ("pretrain", 6),
    ("pretrain", -1),
    ("rl", 2),
    ("rl", -1),
    ("sft", -1),
    ("look", 0),
]


@pytest.fixture(scope="module")
def notes(tmp_path_factory):
    return tmp_path_factory.mktemp("recipe") / "notes.jsonl"


@pytest.fixture(scope="module")
def finished(notes, tmp_path_factory):
    """A run that examines on the way, at a stage's end, on documents that were held out, and in a stage of its own."""
    notes.write_text("".join(json.dumps({"text": text}) + "\n" for text in NOTES))
    examined = RECIPE.replace("evaluate = false\nsft_weight", "evaluate_every = 2\nsft_weight")
    assert examined != RECIPE
    out = tmp_path_factory.mktemp("runs") / "tiny"
    assert run_in_child(write_recipe(notes.parent, examined + STAGES.format(notes=notes)), out) is None
    return out


@pytest.fixture
def run(finished, tmp_path):
    """A copy to do things to."""
    return shutil.copytree(finished, tmp_path / "tiny")


def replayed(run, stage=None):
    recorded = read_run(run)
    return list(replay_evaluations(recorded, recorded.examined(stage)))


def differences(run, stage=None):
    return {(one.stage, one.step): one.difference for one in replayed(run, stage)}


def change(run, stage, step, /, kind="eval", **fields):
    """Other fields in one record, and all signed again."""

    def changed(record):
        place = (record["kind"], record.get("stage"), record.get("step"))
        return record | fields if place == (kind, stage, step) else record

    rewrite(run, changed)


def test_every_evaluation_comes_out_the_same_and_nothing_is_written(finished):
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")}
    found = replayed(finished)
    assert [(one.stage, one.step) for one in found] == EXAMINED
    assert [one.difference for one in found] == [None] * len(EXAMINED)
    assert [one.every_answer for one in found] == [one.stage != "sft" for one in found]
    assert [one.bits_per_byte is not None for one in found] == [one.stage == "sft" for one in found]
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in finished.rglob("*")} == before


def test_other_models_give_other_answers(finished):
    """Else the hash would show nothing."""
    hashes = [r["answers_sha256"] for r in read(finished / "ledger.jsonl") if "answers_sha256" in r]
    assert len(hashes) == 6
    assert len(set(hashes)) >= 5  # rl barely moves its model


def test_one_stage_is_chosen_by_its_name(finished):
    assert differences(finished, "look") == {("look", 0): None}


def test_documents_that_were_held_out_are_read_from_the_run(finished, notes):
    content = notes.read_text()
    notes.unlink()
    try:
        assert differences(finished, "sft") == {("sft", -1): None}
    finally:
        notes.write_text(content)


@pytest.mark.parametrize(
    ("stage", "step"), [("pretrain", 3), ("pretrain", -1), ("rl", 2), ("rl", -1), ("look", 0)]
)
def test_a_number_that_was_made_better_is_named(run, stage, step):
    change(run, stage, step, pass_at_1=0.96875)
    found = differences(run, stage)
    assert found.pop((stage, step)).startswith("pass_at_1 was 0.96875 and is ")
    assert set(found.values()) <= {None}


def test_bits_per_byte_that_were_made_better_are_named(run, notes):
    change(run, "sft", -1, bits_per_byte={str(notes): 1.5})
    assert differences(run, "sft")["sft", -1].startswith(f"bits_per_byte.{notes} was 1.5 and is ")


def test_other_answers_with_the_same_counts_are_named(run):
    change(run, "pretrain", -1, answers_sha256="0" * 64)
    assert differences(run, "pretrain")["pretrain", -1].startswith('answers_sha256 was "000')


def test_records_of_older_versions_are_compared_by_what_they_hold(run):
    rewrite(run, lambda r: {key: value for key, value in r.items() if key != "answers_sha256"})
    found = replayed(run, "pretrain")
    assert [(one.every_answer, one.difference) for one in found] == [(False, None)] * 3
    change(run, "pretrain", -1, truncated=77)
    assert differences(run, "pretrain")["pretrain", -1].startswith("truncated was 77 and is ")


def other_weights(run, stage):
    path = run / "checkpoints" / stage / "model.safetensors"
    tensors, metadata = load_tensors(path)
    save_tensors(path, tensors | {"model.norm.weight": -tensors["model.norm.weight"]}, metadata)
    return path


def test_a_model_that_was_changed_is_named(run):
    other_weights(run, "rl")
    with pytest.raises(RunError, match=r"rl/model\.safetensors is not the file that line \d+ of the ledger"):
        replayed(run, "rl")
    with pytest.raises(RunError, match="stage look began with other files than lie there now"):
        replayed(run, "look")


def test_a_model_that_was_changed_and_named_anew_answers_otherwise(run):
    path = other_weights(run, "rl")
    name, digest = path.relative_to(run).as_posix(), file_sha256(path)

    def named_anew(record):
        if (record["kind"], record.get("stage")) != ("stage_finished", "rl"):
            return record
        (output,) = record["outputs"]
        assert output["path"] == name
        return record | {"outputs": [output | {"sha256": digest}]}

    rewrite(run, named_anew)
    found = differences(run, "rl")
    assert found["rl", 2] is None
    assert found["rl", -1] is not None


def test_held_out_documents_that_were_changed_are_refused(run):
    path = run / "data/sft/0.held_out.jsonl"
    path.write_text(path.read_text().replace("note", "word"))
    with pytest.raises(RunError, match=r"0\.held_out\.jsonl is not the file that line \d+ of the ledger"):
        replayed(run, "sft")


def test_a_step_on_the_way_that_differs_is_told_instead(run):
    """The model that was examined after it is none that its steps lead to."""
    change(run, "pretrain", 3, kind="step", loss=1.5)
    found = differences(run, "pretrain")
    assert found["pretrain", 3].startswith("step 3: loss was 1.5 and is ")
    assert (found["pretrain", 6], found["pretrain", -1]) == (None, None)


def test_an_evaluation_that_the_recipe_does_not_ask_for_is_told(run):
    change(run, "pretrain", 6, step=5)
    found = differences(run, "pretrain")
    assert found["pretrain", 5] == "by the recipe nothing is examined there"
    assert found["pretrain", 3] is None


def test_a_stage_that_examines_nothing_is_not_crashed_by_a_record_that_says_so(run):
    def forged(record):
        is_tokenizer = (record["kind"], record.get("stage")) == ("stage_finished", "tokenizer")
        return record | {"kind": "eval", "step": -1, "pass_at_1": 1.0} if is_tokenizer else record

    rewrite(run, forged)
    assert differences(run, "tokenizer") == {("tokenizer", -1): "by the recipe nothing is examined there"}


def test_where_nothing_was_examined_one_line_says_so(run):
    recorded = read_run(run)
    with pytest.raises(
        InputError, match="stage tokenizer has no evaluation; those that have: pretrain, rl, sft"
    ):
        recorded.examined("tokenizer")
    with pytest.raises(InputError, match="no stage 'pretrian'; did you mean 'pretrain'"):
        recorded.examined("pretrian")
    rewrite(run, lambda record: None if record["kind"] == "eval" else record)
    with pytest.raises(InputError, match="tiny has no evaluation to compute again"):
        read_run(run).examined()


def test_what_vllm_answered_is_not_computed_again(run):
    recipe = run / "recipe.toml"
    recipe.write_text(recipe.read_text().replace('kind = "rl"\n', 'kind = "rl"\nengine = "vllm"\n'))
    with pytest.raises(RunError, match="stage rl was examined through vLLM"):
        replayed(run, "rl")
