"""Papers of a run that is not all its own: nothing is claimed of a base, of rows or of problems from elsewhere."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from clearseek.ledger.log import read


def paper(borrowed: Path, name: str) -> str:
    return (borrowed / "run-papers" / name).read_text(encoding="utf-8")


def section(text: str, number: str) -> str:
    """One section of the EU's summary in one line."""
    return " ".join(text.split(f"### {number} ")[1].split("\n#")[0].split())


@pytest.fixture
def base_sha256(borrowed: Path) -> str:
    (started,) = [
        record
        for record in read(borrowed / "run/ledger.jsonl")
        if record["kind"] == "stage_started" and record["stage"] == "sft"
    ]
    return str(started["parents"][0]["sha256"])


def test_the_unions_summary_says_who_wrote_what_and_what_nobody_stated(borrowed: Path) -> None:
    text = paper(borrowed, "eu-summary.md")
    assert "Dependencies on other models: published-base." in section(text, "1.2")
    assert text.count("random weights") == text.count("not trained from random weights") == 1
    assert "problems.jsonl" in section(text, "2.2")
    assert "acquisition: not stated by the recipe for sft-0, sft-1, collect." in section(text, "1.3")
    crawled = section(text, "2.3")
    assert (
        "Whether texts of sft-0, sft-1, collect were crawled by others is not stated by the recipe" in crawled
    )
    assert "From other services: not stated by the recipe for sft-0, sft-1, collect" in section(text, "2.4")
    synthetic = section(text, "2.5")
    assert "Used: yes" in synthetic
    assert "(sft-0: Reasoner-7B; distill-0: stage collect, made from published-base)" in synthetic
    assert "not stated by the recipe for sft-1, collect" in synthetic
    assert "market: no" not in synthetic
    assert "- distill-0: answers of the model of stage collect" in synthetic
    assert "problems made by program" not in text
    assert "made from published-base; what that was trained on is not stated" in section(text, "2.6")
    assert "what published-base was trained on: not stated" in section(text, "3.1")
    assert "Not stated by the recipe for sft-0, sft-1, collect. Filters" in section(text, "3.2")


def test_a_run_of_its_own_texts_alone_says_so(made: Path) -> None:
    text = (made / "run-papers/eu-summary.md").read_text(encoding="utf-8")
    assert "Dependencies on other models: none; trained from random weights." in text
    assert "market: no. Made otherwise: - tokenizer-0: problems made by program" in section(text, "2.5")
    assert section(text, "2.6").endswith(
        "None: the model was trained from random weights on what is listed above."
    )
    card = (made / "run-papers/README.md").read_text(encoding="utf-8")
    assert "It was trained from random weights on the data sets that are listed, and on nothing else." in card
    assert "published-base" not in card


def test_cards_and_reports_name_the_base_and_claim_nothing_of_it(borrowed: Path) -> None:
    limit = (
        "It was made from published-base; what that was trained on, and so what it knows, is not stated by the "
        "recipe."
    )
    for name in ("README.md", "report.md", "paper.md"):
        text = paper(borrowed, name)
        assert limit in text, name
        assert "random weights to" not in text
        assert "It knows only" not in text
    assert "| sft | sft | published-base |" in paper(borrowed, "report.md")
    assert "published-base lead" not in paper(borrowed, "paper.md")
    assert "stages lead from published-base to a model" in paper(borrowed, "paper.md")
    card = paper(borrowed, "data-card.md")
    assert "**sft-0**: https://rows.example" in card
    assert "teacher: Reasoner-7B" in card
    assert card.count("teacher: not stated") == 1


def test_bill_and_provenance_hold_the_base_by_its_hash(borrowed: Path, base_sha256: str) -> None:
    bom: dict[str, Any] = json.loads(paper(borrowed, "bom.cdx.json"))
    (base,) = [part for part in bom["components"] if part["type"] == "machine-learning-model"]
    assert base["name"] == "published-base"
    assert base["properties"] == [{"name": "clearseek:sha256", "value": base_sha256}]
    assert base["bom-ref"] in bom["dependencies"][0]["dependsOn"]
    card = bom["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["approach"] == {"type": "supervised"}
    assert card["considerations"]["technicalLimitations"][0].startswith("It was made from published-base;")
    statement = json.loads(
        base64.b64decode(json.loads(paper(borrowed, "provenance.intoto.jsonl"))["payload"])
    )
    inputs = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert {"name": "published-base", "digest": {"sha256": base_sha256}} in inputs


def test_data_that_may_not_be_given_are_described_without_their_rows(borrowed: Path) -> None:
    data = borrowed / "run-papers/data"
    assert not (data / "sft-1.jsonl").exists()
    described = json.loads((data / "sft-1.croissant.json").read_text(encoding="utf-8"))
    (kept,) = [
        record
        for record in read(borrowed / "run/ledger.jsonl")
        if record["kind"] == "data" and record["source"].endswith("untold.jsonl")
    ]
    assert described["license"] == "https://spdx.org/licenses/CC-BY-NC-4.0.html"
    assert described["url"] == f"urn:sha256:{kept['documents_sha256']}"
    assert (
        "not distributed: not copied, since its licence is CC-BY-NC-4.0. Origin: not stated"
        in (described["description"])
    )
    assert "somebody left" not in json.dumps(described)
    assert not {"distribution", "recordSet"} & described.keys()
    bom = json.loads(paper(borrowed, "bom.cdx.json"))
    (part,) = [part for part in bom["components"] if part["bom-ref"] == "data/sft-1"]
    assert {one["name"]: one["value"] for one in part["properties"]} == {
        "clearseek:distributed": "no: not copied, since its licence is CC-BY-NC-4.0",
        "clearseek:documents_sha256": kept["documents_sha256"],
    }
    assert "data/sft-1" in bom["dependencies"][0]["dependsOn"]
    told = json.loads(paper(borrowed, "data.json"))
    assert [one["title"] for one in told["described"]] == ["sft-1"]


def test_a_description_of_distilled_rows_names_their_writer(borrowed: Path) -> None:
    described = json.loads(paper(borrowed, "data/sft-0.croissant.json"))
    assert "written by the model Reasoner-7B" in described["description"]
    assert described["prov:wasDerivedFrom"]["name"] == "https://rows.example, the model Reasoner-7B"
