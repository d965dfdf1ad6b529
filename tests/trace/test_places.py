"""A document's place, found by its line alone, is the one that reading all of its source gives."""

import json

import pytest

from clearseek.config.errors import RunError
from clearseek.trace.kept import documents_sha256, text_of
from clearseek.trace.places import Places
from clearseek.trace.sources import RunReadings, StageReading, run_readings, source_documents
from tests.trace.traced_run import traced_run


@pytest.fixture(scope="module")
def readings(tmp_path_factory) -> RunReadings:
    return run_readings(traced_run(tmp_path_factory.mktemp("traced"))[0])


def test_every_place_is_the_one_that_the_whole_source_gives(readings):
    shards = 0
    for stage in readings.stages:
        for source, record in enumerate(stage.data):
            places = Places(readings, stage, source)
            for number, document in enumerate(source_documents(readings, stage, source)):
                if record["kept"] == "generated":
                    assert places.of(number, text_of(document)) == f"problem {number + 1}"
                else:
                    assert places.of(number, text_of(document)) == document.place
            shards += record["kept"] == "shard"
    assert shards >= 3


@pytest.fixture
def distilled(tmp_path) -> tuple[RunReadings, StageReading]:
    """A stage that reads what another wrote, with blank lines between."""
    (tmp_path / "data").mkdir()
    rows = [{"prompt": f"问 {n}?", "thought": f"생각 {n}", "answer": str(n)} for n in range(5)]
    lines = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n  \n"
    (tmp_path / "data" / "distil.jsonl").write_text(lines, encoding="utf-8")
    stage = StageReading("sft", "sft", {"data": [{"stage": "distil"}]})
    hashed = documents_sha256(f"问 {n}?\n생각 {n}\n{n}" for n in range(5))
    stage.data.append({"kept": "stage", "documents_sha256": hashed, "line": 1})
    return RunReadings(tmp_path, 0, [stage], []), stage


def test_what_a_stage_wrote_is_found_by_line(distilled):
    readings, stage = distilled
    places = Places(readings, stage, 0)
    for number, document in enumerate(source_documents(readings, stage, 0)):
        assert places.of(number, text_of(document)) == document.place
        assert document.place.endswith(f"distil.jsonl line {2 * number + 1}")


@pytest.mark.parametrize("damage", ["changed", "cut off", "broken", "lost"])
def test_another_document_in_its_line_is_named(distilled, damage):
    readings, stage = distilled
    file = readings.run_dir / "data" / "distil.jsonl"
    text = file.read_text(encoding="utf-8")
    if damage == "lost":
        file.unlink()
    else:
        last = text.rindex("{")
        damaged = {"changed": text.replace('"4"', '"5"'), "cut off": text[:last], "broken": text[: last + 20]}
        file.write_text(damaged[damage], encoding="utf-8")
    with pytest.raises(
        RunError, match=r"document 5 is not the one that stage sft trained on: the file was changed"
    ):
        Places(readings, stage, 0).of(4, "问 4?\n생각 4\n4")
