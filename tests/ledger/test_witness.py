"""Witnesses of replays: signed beside the run, counted by key, and refused where they are damaged or of another run."""

import shutil

import pytest

from clearseek.cli.main import main
from clearseek.config.errors import RunError
from clearseek.ledger.note import signed_statement
from clearseek.ledger.verifier import Wrong, verify_run
from clearseek.ledger.witness import write_witness
from tests.ledger.sealed_run import sealed_run


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "own.key"))
    return sealed_run(tmp_path / "run")


def witness(run, monkeypatch, who, outcome="same"):
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(run.parent / f"{who}.key"))
    return write_witness(run, {"outcome": outcome, "steps": [["sft", 3]]})


def test_a_replay_by_another_is_counted_once_a_key_and_nothing_is_written_into_the_run(run, monkeypatch):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    witness(run, monkeypatch, "ada")
    witness(run, monkeypatch, "grace", "differs")
    shutil.copy(witness(run, monkeypatch, "ada"), run.with_name("run.witness") / "again.note")
    found = verify_run(run)
    assert (found.witnesses, found.disputed) == (1, 1)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_privacy_tests_are_counted_whoever_signed_them(run, monkeypatch, capsys):
    for who, outcome in (("own", "nothing left"), ("ada", "nothing left"), ("grace", "failed")):
        monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(run.parent / f"{who}.key"))
        write_witness(run, {"outcome": outcome, "tested": {}}, "privacy")
    witness(run, monkeypatch, "ada")
    found = verify_run(run)
    assert (found.witnesses, found.disputed, found.private, found.leaking) == (1, 0, 2, 1)
    assert main(["ledger", "verify", str(run)]) == 0
    told = capsys.readouterr().out
    assert "1 other key signed that what was computed again came out the same" in told
    assert "2 signed privacy tests: nothing left the machine" in told
    assert "1 signed privacy test: it failed" in told


def test_what_the_run_s_key_signed_beside_its_ledger_is_told(run, monkeypatch, capsys):
    name = (run / "ledger.pub").read_text().partition("+")[0]
    assert main(["ledger", "verify", str(run)]) == 0
    assert "signed by the same key" not in capsys.readouterr().out
    (run / "cost.note").write_text(signed_statement(name, "cost", {})[0])
    assert main(["ledger", "verify", str(run)]) == 0
    assert "signed by the same key: cost.note" in capsys.readouterr().out


def test_the_author_is_no_witness(run, monkeypatch):
    witness(run, monkeypatch, "own")
    assert verify_run(run).witnesses == 0


@pytest.mark.parametrize("at", [0, 40, 120, 250, -60, -8])
def test_a_note_that_was_changed_is_named(run, monkeypatch, at):
    path = witness(run, monkeypatch, "ada")
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    with pytest.raises(Wrong, match=path.name):
        verify_run(run)


def test_a_note_about_another_run_is_refused(run, monkeypatch, tmp_path):
    other = sealed_run(tmp_path / "other", steps=3)
    path = witness(other, monkeypatch, "ada")
    folder = run.with_name("run.witness")
    folder.mkdir()
    shutil.copy(path, folder)
    with pytest.raises(Wrong, match="witnesses another ledger than"):
        verify_run(run)


def test_a_run_without_a_seal_has_no_witness(run, monkeypatch):
    (run / "checkpoint").unlink()
    with pytest.raises(RunError, match="has no seal that a witness could speak of"):
        witness(run, monkeypatch, "ada")
