"""A document is taken out: the new run holds none of its words and certifies it, the old one stays as it was."""

import hashlib
import shutil

import pytest

from clearseek.config.errors import InputError
from clearseek.ledger.log import read, verify
from clearseek.ledger.record import load_run
from clearseek.ledger.verifier import verify_run
from clearseek.recipe.recorded import read_run
from clearseek.recipe.remove import _of_tokenizer, find_document, remove_document
from clearseek.recipe.replay import replay_steps
from clearseek.trace.kept import document_sha256, text_of
from clearseek.trace.sources import run_readings, source_documents
from clearseek.train import reject
from tests.recipe.replayed_run import NOTES, recipe_in, run_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run_of(recipe_in(tmp_path_factory.mktemp("recipe")), tmp_path_factory.mktemp("runs") / "tiny")


def hash_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_removed_document_leaves_no_word_and_is_certified(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(reject, "_is_good", lambda item, least: True)
    run = shutil.copytree(finished, tmp_path / "tiny")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    found = remove_document(run, hash_of(NOTES[3])[:8])
    assert (found.document, found.places, found.run_dir.name) == (hash_of(NOTES[3]), ["sft/0"], "tiny-2")
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    verify_run(found.run_dir)
    files = [path for path in found.run_dir.rglob("*") if path.is_file() and path.parent.name != "tiny.toml"]
    assert all(NOTES[3].encode() not in path.read_bytes() for path in files)
    assert any(NOTES[4].encode() in path.read_bytes() for path in files)
    record = read(found.run_dir / "ledger.jsonl")[found.line]
    assert (record["kind"], record["stage"], record["dropped"]) == ("filter", "sft", {"removed": 1})
    same = {name for name, (old, new) in found.models.items() if old == new}
    assert {"tokenizer", "pretrain", "rl"} <= same
    assert "sft" not in same
    assert [one.difference for one in replay_steps(read_run(found.run_dir), [("sft", 2)])] == [None]


def test_the_certificate_names_its_original_where_no_stage_is_taken_over(finished, tmp_path, monkeypatch):
    """The document is one that the tokenizer read, in the first stage."""
    monkeypatch.setattr(reject, "_is_good", lambda item, least: True)
    run = shutil.copytree(finished, tmp_path / "tiny")
    readings = run_readings(run)
    (tokenizer,) = [_of_tokenizer(stage) for stage in readings.others if stage.name == "tokenizer"]
    document = document_sha256(text_of(source_documents(readings, tokenizer, 0)[0]))
    found = remove_document(run, document)
    assert "tokenizer/0" in found.places
    (fork,) = [record for record in read(found.run_dir / "ledger.jsonl") if record["kind"] == "fork"]
    parent = verify(run / "ledger.jsonl")
    assert (fork["line"], fork["stages"]) == (0, [])
    assert fork["parent"] == {"lines": parent.num_lines, "head": parent.sha256}
    verify_run(found.run_dir)
    assert load_run(found.run_dir).inherited == run_readings(found.run_dir).inherited == []
    assert [one.difference for one in replay_steps(read_run(found.run_dir), [("pretrain", 2)])] == [None]


def test_a_document_is_found_by_its_hash_in_every_source(finished):
    assert find_document(finished, hash_of(NOTES[7])) == (hash_of(NOTES[7]), [("sft", 0)])
    with pytest.raises(
        InputError, match="no document that a stage has read has a hash that begins with 00000000"
    ):
        find_document(finished, "00000000")
    with pytest.raises(InputError, match="'abc' is no document's hash; give at least its first 8 digits"):
        find_document(finished, "abc")
