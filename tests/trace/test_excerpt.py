"""A model that brings its run along: what can be traced and checked, and what is refused."""

import io
import json
import os
import shutil
import tarfile
from pathlib import Path

import pytest

from clearseek.cli.main import main
from clearseek.config.errors import InputError, RunError
from clearseek.config.shipped import shipped_model
from clearseek.ledger.verifier import EXCERPT, Wrong, verify_run
from clearseek.trace.excerpt import ARCHIVE, find_run, has_run, pack_run, run_and_stage, unpacked
from clearseek.trace.tracer import Tracer
from tests.trace.traced_run import PAGES, traced_run

TEXT = PAGES["ko"].format(n=3, m=24)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a run and the model of its stage `sft`, which brings it along."""
    folder = tmp_path_factory.mktemp("excerpt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setenv("CLEARSEEK_LEDGER_KEY", str(folder / "ledger.key"))
        run, _ = traced_run(folder)
        checkpoint, out = run / "checkpoints" / "sft", folder / "told"
        assert main(["export", str(checkpoint), "--to", "hf", "--with-run", "--out", str(out)]) == 0
        yield folder


@pytest.fixture
def model(made, tmp_path, monkeypatch) -> Path:
    """The model, to be changed."""
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(made / "ledger.key"))
    return Path(shutil.copytree(made / "told", tmp_path / "told"))


def told(capsys, *words: object) -> tuple[int, str]:
    """Exit code of a command, and all that it printed."""
    code = main([str(word) for word in words])
    out = capsys.readouterr()
    return code, out.out + out.err


def stages_of(shelf) -> list:
    return [use.stage for use in shelf.uses] if hasattr(shelf, "uses") else [shelf.stage]


def listing(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_answer_is_traced_as_in_the_run_itself(made, model):
    before = listing(model)
    with_run, along = (
        Tracer(made / "run").trace(TEXT).to_dict(),
        Tracer(find_run(model)).trace(TEXT).to_dict(),
    )
    assert with_run["spans"]
    assert along | {"run": ""} == with_run | {"run": ""}
    assert listing(model) == before


def test_only_what_led_to_a_model_is_searched(made, model):
    run, stage = run_and_stage(model)
    assert stage == "sft"
    whole, led = Tracer(run), Tracer(run, stage=stage)
    assert {one.name for shelf in led.shelves for one in stages_of(shelf)} == {"pretrain", "sft", "tokenizer"}
    assert len(led.shelves) < len(whole.shelves)


def test_ledger_seal_documents_and_weights_verify(model, capsys):
    code, text = told(capsys, "ledger", "verify", model)
    assert code == 0, text
    assert "files are not in this copy, weights and states" in text
    assert "files of the model in" in text
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    code, text = told(capsys, "ledger", "verify", model)
    assert code == 1
    assert "model.safetensors is not the file that the run's key signed" in text


@pytest.mark.parametrize("command", ["report", "data", "cost", "doctor"])
def test_what_reads_records_works(model, capsys, command):
    code, text = told(capsys, command, model)
    assert code == 0, text


def test_two_copies_say_the_same_in_a_dispute(made, model, capsys):
    code, text = told(capsys, "ledger", "dispute", model, made / "run")
    assert code == 0, text
    assert "the same in every stage" in text


@pytest.mark.parametrize(
    "words",
    [
        ["ledger", "replay", "RUN", "--sample", "1"],
        ["why", "RUN", "a prompt", "--without", "sft/0"],
        ["papers", "RUN"],
        ["openness", "RUN"],
        ["data", "remove", "RUN", "0123456789"],
    ],
)
def test_what_needs_weights_says_so(model, capsys, words):
    code, text = told(capsys, *(model if word == "RUN" else word for word in words))
    assert code == 2
    assert "brings its run along without weights and states" in text


def test_a_file_is_only_left_out_by_whoever_sealed_the_run(made, model, tmp_path, monkeypatch):
    run = Path(shutil.copytree(unpacked(model), tmp_path / "copy"))
    verify_run(run)
    (run / "samples.jsonl").unlink()
    with pytest.raises(Wrong, match=r"samples\.jsonl of line \d+ cannot be read"):
        verify_run(run)
    shutil.copyfile(unpacked(model) / "samples.jsonl", run / "samples.jsonl")
    note = (run / EXCERPT).read_text(encoding="utf-8")
    (run / EXCERPT).write_text(note.replace('"left_out":[', '"left_out":["samples.jsonl",'), encoding="utf-8")
    with pytest.raises(Wrong, match=r"excerpt\.note: the signature of .* is wrong"):
        verify_run(run)
    shutil.copyfile(run / "cost.note", run / EXCERPT)
    with pytest.raises(Wrong, match=r"excerpt\.note states .*/cost, not .*/excerpt: it belongs elsewhere"):
        verify_run(run)
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "another.key"))
    with pytest.raises(InputError, match="was sealed with another key than yours"):
        pack_run(made / "run", model, "sft")


def test_the_same_run_gives_the_same_bytes(made, model):
    first = (model / ARCHIVE).read_bytes()
    assert pack_run(made / "run", model, "sft").read_bytes() == first


def test_what_was_swept_from_the_cache_is_unpacked_again(model):
    run = unpacked(model)
    (run / "ledger.jsonl").unlink()
    assert (unpacked(model) / "ledger.jsonl").is_file()


def test_a_damaged_one_and_one_that_reaches_outside_are_refused(model, tmp_path):
    archive = model / ARCHIVE
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RunError, match=r"run\.tar\.xz is damaged"):
        unpacked(model)
    with tarfile.open(archive, "w:xz") as file:
        about = tarfile.TarInfo("../outside")
        about.size = 1
        file.addfile(about, io.BytesIO(b"x"))
    with pytest.raises(RunError, match="no file of a run"):
        unpacked(model)
    with tarfile.open(archive, "w:xz") as file:
        link = tarfile.TarInfo("ledger.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        file.addfile(link)
    with pytest.raises(RunError, match="no file of a run"):
        unpacked(model)


def test_a_cache_that_cannot_be_written_says_so(model, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(RunError, match="set XDG_CACHE_HOME"):
        unpacked(model)


def test_only_a_run_goes_along_and_only_beside_weights_of_its_own(made, model, capsys, tmp_path):
    code, text = told(capsys, "export", made / "run", "--to", "gguf", "--with-run")
    assert (code, "needs --to hf" in text) == (2, True)
    code, text = told(capsys, "export", model, "--to", "hf", "--with-run", "--out", tmp_path / "again")
    assert (code, "without weights and states" in text) == (2, True)
    (model / ARCHIVE).unlink()
    assert not has_run(model)
    code, text = told(capsys, "export", model, "--to", "hf", "--with-run", "--out", tmp_path / "again")
    assert (code, "isn't here; give a run" in text) == (2, True)
    assert not (tmp_path / "again").exists()


def test_the_model_that_comes_along_brings_its_run(monkeypatch, tmp_path, capsys):
    model = shipped_model()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert has_run(model)
    assert sum(path.stat().st_size for path in model.iterdir()) <= 10_000_000
    code, text = told(capsys, "ledger", "verify", "r1-mini", "--json")
    assert code == 0, text
    found = json.loads(text)
    assert found["left_out"] > 0
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= found["model"].keys()
    report = json.loads((model / "report.json").read_text(encoding="utf-8"))
    assert report["ledger"]["lines"] == found["lines"] == found["sealed"]
    (tmp_path / "r1-mini").mkdir()  # a directory of that name is meant before
    assert find_run(Path("r1-mini")) == Path("r1-mini")
    assert os.listdir(tmp_path / "r1-mini") == []
