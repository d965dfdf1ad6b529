"""What a run records of its sources: rights, contents, what filters dropped and who wrote what."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from clearseek.config.errors import InputError
from clearseek.data.filters import code_sha256
from clearseek.ledger.log import read
from clearseek.ledger.verifier import Wrong, check_uses, verify_run
from clearseek.recipe.run import run_recipe
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.kept import text_of
from clearseek.trace.sources import run_readings, source_documents
from clearseek.trace.steps import document_steps
from tests.data.filtered_run import EMAIL, RECIPE, RESIDENT, pages, write_documents


def records(run: Path, kind: str, stage: str = "pretrain") -> list[dict[str, Any]]:
    return [
        record for record in read(run / "ledger.jsonl") if record["kind"] == kind and record["stage"] == stage
    ]


def texts(run: Path, index: int) -> list[str]:
    """What the ledger says that a source of `pretrain` gave, read again and held to its hash."""
    readings = run_readings(run)
    return [text_of(document) for document in source_documents(readings, readings.stage("pretrain"), index)]


def test_every_filter_drops_what_it_is_for_and_nothing_else(run: Path) -> None:
    (found,) = [record for record in records(run, "filter") if record["data"] == 0]
    dropped = {"min_chars": 1, "max_chars": 1, "languages": 1, "duplicates": 1, "near_duplicates": 1,
               "contamination": 1, "personal_data": 2}  # fmt: skip
    assert found["dropped"] == dropped
    assert (found["rows_in"], found["rows_out"]) == (len(pages()), len(pages()) - 8)
    left = {name: text for name, text in pages().items() if not name.startswith(("x-", "a-"))}
    assert texts(run, 0) == [left[name] for name in sorted(left)]
    assert found["code_sha256"] == code_sha256()
    assert found["rules"]["duplicates"] == "near"


def test_samples_of_what_was_dropped_lie_in_the_run_without_personal_data(run: Path) -> None:
    path = run / "data" / "pretrain" / "0.dropped.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    by_rule = {row["rule"]: row for row in rows}
    assert by_rule["near_duplicates"]["place"].endswith("x-near.md")
    assert by_rule["contamination"]["text"] == pages()["a-contaminated.md"]
    content = path.read_text(encoding="utf-8")
    assert EMAIL not in content
    assert RESIDENT not in content
    assert "[email]" in content
    assert "[kr_resident_number]" in content


def test_masked_documents_are_what_was_learnt(run: Path) -> None:
    (found,) = [record for record in records(run, "filter") if record["data"] == 1]
    assert found["masked"] == {"email": 1, "phone": 1}
    assert texts(run, 1)[-1] == "Whom do I ask?\nthe keeper\nAsk [email] or [phone]."
    assert EMAIL not in (run / "data" / "pretrain" / "1.jsonl").read_text(encoding="utf-8")


def test_generated_problems_can_be_filtered_too(run: Path) -> None:
    (found,) = [record for record in records(run, "filter") if record["data"] == 2]
    given = texts(run, 2)
    assert found["rows_out"] == len(given) == len(set(given))
    assert found["rows_in"] == 40 == found["rows_out"] + found["dropped"]["duplicates"]


def test_a_source_s_record_states_rights_and_counts_what_is_in_it(run: Path) -> None:
    first, second, third, fourth = records(run, "source")
    assert (first["licence"], first["collected"]) == ("CC-BY-4.0", "2026-11-01")
    assert (first["origin"], first["opt_out"]) == ("https://lighthouse.example", "robots.txt heeded")
    given = texts(run, 0)
    assert first["rows"] == len(given)
    assert first["bytes"] == sum(len(text.encode()) for text in given)
    assert {name: table["documents"] for name, table in first["languages"].items()} == {
        "en": len(given) - 1,
        "ko": 1,
    }
    assert first["personal_data"] == {}
    assert first["contamination"]["evaluation"]["whole"] == 0
    assert first["contamination"]["evaluation"]["items"] == 4
    assert second["licence"] is None
    assert (first["teacher"], second["teacher"]) == (None, {"name": "Reasoner-7B"})
    assert third["licence"] == fourth["licence"] == "CC0-1.0"
    assert fourth["languages"].keys() == {"ko"}
    tokenizer = records(run, "source", "tokenizer")[0]
    assert tokenizer["contamination"]["evaluation"]["whole"] == 1
    assert tokenizer["contamination"]["evaluation"]["samples"][0]["whole"]
    assert tokenizer["duplicates"] == {"exact": 1, "near": 1}


def test_the_mix_says_what_share_each_source_has(run: Path) -> None:
    (mix,) = records(run, "mix")
    data = records(run, "data")
    assert [(one["documents"], one["tokens"]) for one in mix["weights"]] == [
        (one["documents"], one["tokens"]) for one in data
    ]
    assert sum(one["documents"] for one in mix["weights"]) == mix["documents"]


def test_steps_can_still_be_told_and_the_run_verifies(run: Path) -> None:
    readings = run_readings(run)
    stage = readings.stage("pretrain")
    sources = [source_documents(readings, stage, index) for index in range(4)]
    steps = document_steps(readings, stage, sources)
    assert steps.documents_of(1)
    assert verify_run(run).files > 10


def test_the_record_of_a_teacher_names_the_model_and_how_it_was_sampled(run: Path) -> None:
    (teacher,) = records(run, "teacher", "rl")
    (finished,) = records(run, "stage_finished", "pretrain")
    assert teacher["model"] == {"stage": "pretrain", "sha256": finished["outputs"][0]["sha256"]}
    assert teacher["sampling"] == {"temperature": 1.0, "top_p": 1.0, "max_completion_tokens": 6, "samples": 2}
    template = Tokenizer.load(run / "checkpoints/pretrain").chat.source
    assert teacher["template_sha256"] == hashlib.sha256(template.encode()).hexdigest()
    assert teacher["while_training"]
    assert teacher["licence"] is None


def test_problems_that_a_model_is_asked_are_a_source_as_well(run: Path) -> None:
    (asked,) = records(run, "source", "rl")
    assert (asked["what"], asked["licence"], asked["levels"]) == ("asked", "CC0-1.0", [1])
    assert "rows" not in asked


def test_examples_of_which_no_stage_left_any_are_found() -> None:
    def records_with(digest: str) -> list[dict[str, Any]]:
        left = {"path": "data/reject.jsonl", "sha256": "a" * 64}
        return [
            {"kind": "stage_started", "line": 0, "stage": "reject"},
            {"kind": "stage_finished", "line": 1, "stage": "reject", "outputs": [left]},
            {"kind": "source", "line": 2, "stage": "sft", "teacher": {"stage": "reject", "sha256": digest}},
        ]

    check_uses(records_with("a" * 64))
    check_uses([{"kind": "source", "line": 0, "stage": "sft", "teacher": {"name": "Reasoner-7B"}}])
    with pytest.raises(Wrong, match="line 2: stage sft learnt from something of reject that no record"):
        check_uses(records_with("b" * 64))


def test_a_changed_sample_of_what_was_dropped_is_found(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    path = copy / "data" / "pretrain" / "0.dropped.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("riddle", "Riddle"), encoding="utf-8")
    with pytest.raises(Wrong, match=r"0\.dropped\.jsonl is not the file that line \d+ names"):
        verify_run(copy)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("min_chars = 20\nmax_chars = 2000", "min_chars = 9000", "gives no documents: its filters leave none"),
        ("CC-BY-4.0", "CC BY 4.0", r"'CC BY 4.0' is no SPDX id.*did you mean 'CC-BY-4.0'"),
        ("collected = 2026-11-01", "collected = 'lately'", "'lately' is no date; write 2026-11-29"),
        ("duplicates = true", "duplicate = true", r"unknown key .*filters.duplicate; did you mean 'duplicates'"),
        ('languages = ["en", "ko"]', 'languages = ["fr"]', r"languages.*should be 'en', 'ko', 'zh'"),
        ("max_chars = 2000", "max_chars = 3", r"max_chars \(3\) is below min_chars \(20\)"),
    ],
)  # fmt: skip
def test_a_wrong_filter_or_licence_is_one_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    write_documents(tmp_path)
    recipe = tmp_path / "wrong.toml"
    recipe.write_text(RECIPE.replace(old, new).replace("FOLDER", tmp_path.as_posix()), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        run_recipe(str(recipe), out=tmp_path / "run", device="cpu")


def test_contamination_can_not_be_filtered_without_an_evaluation(tmp_path: Path) -> None:
    write_documents(tmp_path)
    recipe = tmp_path / "blind.toml"
    text = RECIPE.replace("sequence_length = 128", "sequence_length = 128\nevaluate = false")
    recipe.write_text(text.replace("FOLDER", tmp_path.as_posix()), encoding="utf-8")
    with pytest.raises(InputError, match="contamination: the recipe has no evaluation whose items"):
        run_recipe(str(recipe), out=tmp_path / "run", device="cpu")
