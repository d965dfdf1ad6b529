"""The papers of a real tiny run: that they say what the records say, and that nothing wrong is signed or believed."""

import base64
import hashlib
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clearseek.claims.check import check_documents
from clearseek.cli.main import main
from clearseek.config.errors import InputError, RunError
from clearseek.ledger.code import code_sha256
from clearseek.ledger.cost import cost_of
from clearseek.ledger.log import read, verify
from clearseek.ledger.record import load_run
from clearseek.ledger.verifier import verify_run
from clearseek.papers.bom import bill_of_materials
from clearseek.papers.code import installed_sha256
from clearseek.papers.documents import DOCUMENTS
from clearseek.papers.facts import read_facts
from clearseek.papers.release import hashes_below, openness_of, read_release, write_papers
from clearseek.recipe.run import run_recipe
from clearseek.trace.kept import documents_sha256
from tests.ledger.sealed_run import sealed_run
from tests.papers.stated import STATED
from tests.recipe.tiny_run import RECIPE, write_recipe


def loaded(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_run_reaches_class_one_by_files_that_are_there(made: Path) -> None:
    found = openness_of(read_facts(made / "run"), made / "run-papers")
    assert found["mof"]["name"] == "Class I - Open Science"
    assert found["mof"]["not_type_appropriate"] == []
    assert all(one["included"] and one["files"] for one in found["mof"]["components"])
    assert found["osaid"]["is_open_source_ai"]
    assert found == loaded(made / "run-papers/openness.json")


def test_without_papers_what_is_missing_is_named(made: Path, tmp_path: Path) -> None:
    found = openness_of(read_facts(made / "run"), tmp_path / "none")["mof"]
    assert found["class"] == 0
    assert (
        found["missing_for_next"]["Model card"][0]
        == "there is no README.md; `clearseek papers RUN` writes it"
    )
    assert "its licence is not stated" in found["missing_for_next"]["Model parameters (Final)"]


def test_every_figure_of_every_document_has_its_record(made: Path) -> None:
    found = check_documents([made / "run-papers" / name for name in DOCUMENTS])
    assert [str(fault) for fault in found.faults] == []
    assert found.figures > 25


def test_an_altered_figure_of_a_card_is_found(copied: Path) -> None:
    card = copied / "run-papers/report.md"
    text = card.read_text()
    card.write_text(text.replace("| 0.0 % |", "| 90.0 % |", 1))
    assert card.read_text() != text
    assert "90.0 disagrees" in str(check_documents([card]).faults[0])


def test_written_data_are_what_was_trained_on(made: Path) -> None:
    records = read(made / "run/ledger.jsonl")
    (kept,) = [r for r in records if r["kind"] == "data" and r["stage"] == "pretrain"]
    lines = (made / "run-papers/data/pretrain-0.jsonl").read_text(encoding="utf-8").splitlines()
    texts = ["\n".join(json.loads(line)[key] for key in ("prompt", "thought", "answer")) for line in lines]
    assert documents_sha256(texts) == kept["documents_sha256"]
    held_out = (made / "run-papers/data/evaluation.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(held_out) == 4
    probes = {sample["problem_id"] for sample in read(made / "run/samples.jsonl")}
    assert probes <= {json.loads(line)["id"] for line in held_out}


def test_a_description_of_data_says_rows_hash_fields_and_licence(made: Path) -> None:
    described = loaded(made / "run-papers/data/pretrain-0.croissant.json")
    (file,) = described["distribution"]
    content = (made / "run-papers/data" / file["contentUrl"]).read_bytes()
    assert file["sha256"] == hashlib.sha256(content).hexdigest()
    assert described["conformsTo"][0] == "http://mlcommons.org/croissant/1.1"
    assert described["license"] == "https://spdx.org/licenses/CC0-1.0.html"
    assert [field["name"] for field in described["recordSet"][0]["field"]] == ["prompt", "thought", "answer"]


def test_the_bill_of_materials_counts_model_data_and_software(made: Path) -> None:
    bom = loaded(made / "run-papers/bom.cdx.json")
    model = bom["metadata"]["component"]
    weights = made / "run/checkpoints/pretrain/model.safetensors"
    assert model["hashes"][0]["content"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    names = {part["name"] for part in bom["components"]}
    assert {"tiny-pretrain-0", "tiny-evaluation", "torch", "python", "clearseek"} <= names
    energy = model["modelCard"]["considerations"]["environmentalConsiderations"]["energyConsumptions"]
    assert [one["activity"] for one in energy] == ["data-preparation", "training", "fine-tuning"]


def test_every_shard_of_the_weights_is_in_the_bill(made: Path) -> None:
    facts = read_facts(made / "run")
    shards = {f"checkpoints/pretrain/model-0000{n}-of-00002.safetensors": str(n) * 64 for n in (1, 2)}
    bom = bill_of_materials(replace(facts, hashes=facts.hashes | shards), [], [])
    found = {one["content"] for one in bom["metadata"]["component"]["hashes"]}
    whole = facts.hashes["checkpoints/pretrain/model.safetensors"]
    assert found == {whole, *shards.values()}
    assert {one["alg"] for one in bom["metadata"]["component"]["hashes"]} == {"SHA-256"}


def test_data_too_large_to_be_kept_are_described(made: Path, tmp_path: Path) -> None:
    facts = read_facts(made / "run", STATED)
    sources = tuple(
        replace(one, kept="reference") if one.title == "pretrain-0" else one for one in facts.sources
    )
    found = write_papers(replace(facts, sources=sources), tmp_path / "papers")["mof"]
    why = "too large to be kept in the run; it is named by hash only"
    assert found["missing_for_next"]["Datasets"] == [f"pretrain-0: {why}"]
    described = loaded(tmp_path / "papers/data/pretrain-0.croissant.json")
    (kept,) = [one for one in facts.sources if one.title == "pretrain-0"]
    assert (
        f"not distributed: {why}. Origin: {kept.origin}; SHA-256 over its documents: {kept.documents_sha256}."
        in (described["description"])
    )
    assert "distribution" not in described
    assert not (tmp_path / "papers/data/pretrain-0.jsonl").exists()


def test_provenance_names_what_went_in_and_what_came_out(made: Path) -> None:
    signed = loaded(made / "run-papers/provenance.intoto.jsonl")
    statement = json.loads(base64.b64decode(signed["payload"]))
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    for subject in statement["subject"]:
        content = (made / "run" / subject["name"]).read_bytes()
        assert subject["digest"]["sha256"] == hashlib.sha256(content).hexdigest()
    inputs = {one["name"] for one in statement["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert inputs == {
        "recipe.toml",
        *(f"data/{name}.jsonl" for name in ("tokenizer-0", "pretrain-0", "rl-0")),
    }


def test_the_unions_summary_answers_every_section(made: Path) -> None:
    text = (made / "run-papers/eu-summary.md").read_text(encoding="utf-8")
    for section in ("1.1", "1.2", "1.3", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6", "3.1", "3.2", "3.3"):
        assert f"### {section} " in text
    assert "A. Lab, lab@example.org" in text
    assert "less than 1 billion tokens" in text


def test_the_same_run_gives_the_same_papers(copied: Path, tmp_path: Path) -> None:
    write_papers(read_facts(copied / "run", STATED), tmp_path / "again")
    signed = ("model.sig", "provenance.intoto.jsonl")  # by ECDSA, which draws a number each time
    first, second = (hashes_below(folder) for folder in (copied / "run-papers", tmp_path / "again"))
    assert {k: v for k, v in first.items() if k not in signed} == {
        k: v for k, v in second.items() if k not in signed
    }


def test_what_is_not_stated_is_said_so_and_not_claimed(copied: Path, tmp_path: Path) -> None:
    found = write_papers(read_facts(copied / "run"), tmp_path / "papers")
    assert found["mof"]["class"] == 0
    card = (tmp_path / "papers/README.md").read_text(encoding="utf-8")
    assert "| licence of the weights | not stated |" in card
    assert "license:" not in card
    assert "Model card" not in (tmp_path / "papers/mof.yml").read_text(encoding="utf-8")


@pytest.mark.parametrize("licence", [None, "CC-BY-NC-4.0", "CC-BY-4.0"])
def test_texts_of_others_are_given_away_only_under_an_open_licence(
    copied: Path, tmp_path: Path, licence: str | None
) -> None:
    texts = tmp_path / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"text": f"The {i % 9}th text of somebody else."}) + "\n" for i in range(12))
    )
    stated = f', licence = "{licence}"' if licence else ""
    source = f'{{ path = "{texts}", filters = {{ duplicates = true }}{stated} }}'
    recipe = write_recipe(tmp_path, RECIPE.replace("count = 40 }]", f"count = 40 }}, {source}]"))
    run_recipe(recipe, out=tmp_path / "run", device="cpu")
    found = write_papers(read_facts(tmp_path / "run", STATED), tmp_path / "papers")["mof"]
    card = (tmp_path / "papers/data-card.md").read_text(encoding="utf-8")
    assert "dropped by filters: duplicates 3" in card
    if licence == "CC-BY-4.0":
        assert found["class"] == 1
        assert "Datasets" in found["not_type_appropriate"]
        assert len((tmp_path / "papers/data/pretrain-1.jsonl").read_text().splitlines()) == 9
    else:
        why = f"pretrain-1: not copied, since its licence is {licence or 'not stated'}"
        assert found["missing_for_next"]["Datasets"][0] == why
        assert f"- {why}" in card
        (described,) = (tmp_path / "papers/data").glob("pretrain-1*")
        assert f"The file is not distributed: {why.partition(': ')[2]}." in loaded(described)["description"]


def change(folder: Path, name: str, how: str) -> None:
    path = folder / name
    if how == "lost":
        path.unlink()
    elif how == "changed":
        path.write_bytes(path.read_bytes() + b" ")
    else:
        path.write_text("more")


@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("README.md", "changed", "README.md is not the file that release.note names: it was changed"),
        ("data/pretrain-0.jsonl", "changed", "is not the file that release.note names"),
        ("data-card.md", "lost", "data-card.md is missing: the papers were half copied"),
        ("extra.md", "added", "extra.md is not named by release.note: it came afterwards"),
        ("release.pub", "lost", "has no release.pub: it holds no papers, or was half copied"),
        ("release.note", "lost", "release.note: cannot be read"),
        ("release.note", "added", "release.note"),
    ],
)
def test_changed_papers_are_named(
    copied: Path, name: str, how: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    change(copied / "run-papers", name, how)
    assert main(["openness", str(copied / "run")]) == 1
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_papers_can_be_checked_by_whoever_has_nothing_else(
    copied: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    papers = copied / "run-papers"
    shutil.rmtree(copied / "run")
    assert main(["papers", "--check", str(papers), "--json"]) == 0
    release = json.loads(capsys.readouterr().out)
    assert release["files"] == hashes_below(papers)
    assert main(["papers", "--check", str(papers), "--key", (papers / "release.pub").read_text()]) == 0
    assert "files, each as release.note names it, and no others" in capsys.readouterr().out
    assert (
        main(["papers", "--check", str(papers), "--key", _foreign_key(copied / "run-papers", tmp_path)]) == 1
    )
    assert "is not signed by" in capsys.readouterr().err
    change(papers, "mof.yml", "changed")
    assert main(["papers", "--check", str(papers)]) == 1


def test_papers_of_another_run_or_key_are_not_believed(copied: Path, tmp_path: Path) -> None:
    facts = read_facts(copied / "run")
    other = shutil.copytree(copied / "run-papers", tmp_path / "other")
    note = (other / "release.note").read_text()
    (other / "release.note").write_text(note.replace(facts.verified.root, "0" * 64))
    with pytest.raises(RunError, match=r"the signature of .* is wrong"):
        openness_of(facts, other)
    with pytest.raises(RunError, match="is not signed by"):
        read_release(copied / "run-papers", _foreign_key(copied, tmp_path))


def _foreign_key(copied: Path, tmp_path: Path) -> str:
    from clearseek.ledger.note import signed_statement

    pub = next(copied.rglob("ledger.pub"))
    name = pub.read_text().partition("+")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "foreign.key"))
        return signed_statement(name, "release", {})[1]


def test_a_damaged_run_has_no_papers(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied / "run"
    (run / "checkpoints/pretrain/model.safetensors").unlink()
    assert main(["papers", str(run), "--out", str(tmp_path / "papers")]) == 1
    assert "lost or half copied" in capsys.readouterr().err
    shutil.rmtree(run)
    shutil.copytree(copied / "run-papers", run)
    assert main(["papers", str(run)]) == 2
    assert "has no ledger.jsonl" in capsys.readouterr().err


def test_an_unsealed_or_unfinished_run_has_no_papers(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "run/checkpoint").unlink()
    assert main(["papers", str(copied / "run"), "--out", str(tmp_path / "papers")]) == 1
    assert "lost, half copied or never sealed" in capsys.readouterr().err
    lines = (copied / "run/ledger.jsonl").read_bytes().splitlines(keepends=True)
    (copied / "run/ledger.jsonl").write_bytes(b"".join(lines[:-1]))
    assert main(["papers", str(copied / "run"), "--out", str(tmp_path / "papers")]) == 2
    assert "papers are for finished runs" in capsys.readouterr().err


def test_a_run_without_its_clock_or_evaluation_is_one_line(copied: Path, tmp_path: Path) -> None:
    (copied / "run/cost.note").unlink()
    (copied / "run/timings.jsonl").unlink()
    with pytest.raises(InputError, match=r"has no time in timings\.jsonl"):
        read_facts(copied / "run")
    run = sealed_run(tmp_path / "other")
    with pytest.raises(InputError, match="time in timings"):
        read_facts(run)


def test_another_key_must_not_have_sealed_it(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="another key sealed the run"):
        read_facts(copied / "run", key=_foreign_key(copied, tmp_path).strip())
    with pytest.raises(RunError, match="or yours is no key"):
        read_facts(copied / "run", key="nonsense")


def test_papers_go_beside_the_run_and_over_nothing(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = hashes_below(copied / "run")
    assert main(["papers", str(copied / "run"), "--out", str(copied / "run/papers")]) == 2
    assert "lies in the run, which is sealed" in capsys.readouterr().err
    assert main(["papers", str(copied / "run")]) == 2
    assert "run-papers holds something already" in capsys.readouterr().err
    assert main(["papers", str(copied / "run"), "--out", str(copied / "model.key")]) == 2
    assert hashes_below(copied / "run") == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_may_not_be_written_is_one_line(copied: Path, tmp_path: Path) -> None:
    place = tmp_path / "shut"
    place.mkdir(mode=0o500)
    with pytest.raises(RunError, match="can't be written there"):
        write_papers(read_facts(copied / "run"), place / "papers")


def test_a_disk_that_refuses_leaves_nothing(
    copied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clearseek.papers.release.shutil.copyfile", refuse)
    with pytest.raises(RunError, match=r"No space left on device.*nothing was left"):
        write_papers(read_facts(copied / "run"), tmp_path / "papers")
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_another_version_of_the_code_is_not_named(
    copied: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("clearseek.papers.code.installed_version", lambda: "9.9")
    with pytest.raises(InputError, match=r"was made by clearseek 0.1.0, this is 9.9"):
        write_papers(read_facts(copied / "run"), tmp_path / "papers")


def test_other_code_of_the_same_version_is_not_named_either(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("clearseek.papers.code.code_sha256", lambda: "0" * 64)
    assert main(["papers", str(copied / "run"), "--out", str(tmp_path / "papers")]) == 2
    error = capsys.readouterr().err
    assert "the code now is not the code that made the run" in error
    assert error.count("\n") == 1


def test_code_says_what_each_session_ran(made: Path) -> None:
    code = loaded(made / "run-papers/code.json")
    (session,) = code["sessions"]
    assert session["code_sha256"] == code["code_sha256"] == code_sha256()
    (run,) = [record for record in read(made / "run/ledger.jsonl") if record["kind"] == "run"]
    assert session == {name: run[name] for name in ("line", "code_sha256", "checkout")}
    assert {"numpy", "safetensors", "tokenizers", "torch", "python"} <= run["versions"].keys()


def test_code_that_is_not_here_is_not_claimed(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = installed_sha256
    monkeypatch.setattr(
        "clearseek.papers.components.installed_sha256",
        lambda path: None if path == "clearseek/train/rl.py" else known(path),
    )
    found = openness_of(read_facts(copied / "run"), copied / "run-papers")["mof"]
    assert found["name"] == "Class III - Open Model"
    (why,) = found["missing_for_next"]["Training code"]
    assert "1 of its files are not here as code.json names them, such as clearseek/train/rl.py" in why
    assert known("clearseek/../../etc/passwd") is None
    assert known("elsewhere/a.py") is None


def test_a_finished_run_has_signed_its_cost_once(copied: Path) -> None:
    run = copied / "run"
    assert cost_of(run)["signed"]
    before = (run / "cost.note").read_bytes()
    run_recipe(str(copied / "tiny.toml"), out=run, device="cpu")
    assert (run / "cost.note").read_bytes() == before


def test_the_commands_print_it(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(copied / "run-papers")
    stated = ["--weights", "CC0-1.0", "--documents", "CC-BY-4.0", "--json"]
    assert main(["papers", str(copied / "run"), *stated]) == 0
    assert json.loads(capsys.readouterr().out)["mof"]["class"] == 1
    assert main(["openness", str(copied / "run")]) == 0
    out = capsys.readouterr().out
    assert "Model Openness Framework: Class I - Open Science" in out
    assert "Open Source AI Definition 1.0: not met" in out  # CC-BY is open, and not approved by OSI
    assert "CC-BY-4.0 is not OSI-approved" in out


def test_a_place_that_cannot_be_is_one_line(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["papers", str(copied / "run"), "--out", str(tmp_path / "file/papers")]) == 1
    error = capsys.readouterr().err
    assert "the papers can't be written there" in error
    assert error.count("\n") == 1


def test_a_fork_has_papers_that_tell_what_it_took_over(made, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CLEARSEEK_MODEL_KEY", str(made / "model.key"))
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(made / "ledger.key"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    run = Path(shutil.copytree(made / "run", tmp_path / "run"))
    recipe = write_recipe(tmp_path, RECIPE)
    forked = run_recipe(recipe, ["rl.steps=2"], out=run, device="cpu", fork=True).run_dir
    again = run_recipe(recipe, ["rl.steps=1"], out=forked, device="cpu", fork=True).run_dir
    heads = [verify(run / "ledger.jsonl").sha256, verify(forked / "ledger.jsonl").sha256]
    before, cost = cost_of(run), cost_of(again)
    assert verify_run(again).files
    assert cost["signed"]
    for one, head in zip((forked, again), heads, strict=True):
        stages = ["tokenizer", "pretrain"]
        assert load_run(one).inherited == [{"stages": stages, "ledger_head": head}]
    assert cost["stages"][:2] == before["stages"][:2]
    assert cost["stages"][2]["wall_seconds"] != before["stages"][2]["wall_seconds"]
    capsys.readouterr()
    assert main(["papers", str(again), "--weights", "Apache-2.0"]) == 0
    card = (again.with_name(f"{again.name}-papers") / "README.md").read_text(encoding="utf-8")
    assert f"`{heads[1]}`" in card
    for words in (["openness"], ["cost"], ["data"], ["trace", "--min-tokens", "2"]):
        command, *options = words
        assert main([command, str(again), *(["What is"] if command == "trace" else []), *options]) == 0
        told = capsys.readouterr().out
        if command != "openness":
            assert (
                f"tokenizer, pretrain: taken over from the run whose ledger ends with {heads[1][:16]}" in told
            )
