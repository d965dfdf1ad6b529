"""A run that is finished is left alone; one that can't be written, or was half copied, is one line."""

import errno
import json
import os
import shutil

import pytest

from clearseek.cli.main import main
from clearseek.config.errors import InputError, RunError
from clearseek.config.progress import SilentProgress
from clearseek.ledger.append import LineFile
from clearseek.ledger.seal import seal
from clearseek.ledger.verifier import verify_run
from clearseek.recipe.recorded import read_run
from clearseek.recipe.run import run_recipe
from tests.recipe.tiny_run import run_in_child


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "tiny")


class Notes(SilentProgress):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def test_a_sealed_run_is_not_written_into(recipe, run):
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()}
    notes = Notes()
    found = run_recipe(recipe, out=run, device="cpu", progress=notes)
    assert [stage["name"] for stage in found.report["stages"]] == ["tokenizer", "pretrain", "rl"]
    assert notes.said == [f"{run} is finished and sealed: nothing is written into it any more"]
    assert {
        path: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.rglob("*") if path.is_file()
    } == before


def test_a_report_that_a_kill_left_out_is_made(recipe, run):
    (run / "report.json").unlink()
    run_recipe(recipe, out=run, device="cpu")
    assert (run / "report.json").is_file()
    verify_run(run)


def files_of(run):
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize("lost", [["checkpoint"], ["checkpoint", "ledger.pub"]])
def test_a_run_that_another_key_sealed_is_not_sealed_anew(recipe, run, monkeypatch, tmp_path, lost):
    """A downloaded one whose copy lacks something: no file of it changes, and none comes into it."""
    for name in lost:
        (run / name).unlink()
    (run / "ledger.jsonl").open("ab").write(b'{"line":99,"torn')
    before = files_of(run)
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "own.key"))
    with pytest.raises(
        RunError, match=r"was sealed with another key than yours, .* set CLEARSEEK_LEDGER_KEY"
    ):
        run_recipe(recipe, out=run, device="cpu")
    assert files_of(run) == before


def test_an_unfinished_run_of_another_key_is_not_taken_over(recipe, run, monkeypatch, tmp_path):
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (end,) = [n for n, line in enumerate(lines) if b'"stage_finished","stage":"pretrain"' in line]
    (run / "ledger.jsonl").write_bytes(b"".join(lines[: end + 1]))
    with LineFile(run / "ledger.jsonl") as file:
        seal(run, file.lines)
    before = files_of(run)
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "own.key"))
    with pytest.raises(RunError, match="was sealed with another key than yours"):
        run_recipe(recipe, out=run, device="cpu")
    assert files_of(run) == before


def test_the_cost_of_a_run_that_another_key_sealed_is_not_signed(recipe, run, monkeypatch, tmp_path):
    (run / "cost.note").unlink()
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "own.key"))
    run_recipe(recipe, out=run, device="cpu")
    assert not (run / "cost.note").exists()
    verify_run(run)
    monkeypatch.undo()
    run_recipe(recipe, out=run, device="cpu")
    assert (run / "cost.note").exists()


def test_a_run_of_one_s_own_is_sealed_anew_where_its_seal_is_lost(recipe, run):
    for name in ("checkpoint", "ledger.pub"):
        (run / name).unlink()
    run_recipe(recipe, out=run, device="cpu")
    verify_run(run)


def test_a_damaged_key_is_one_line(recipe, run):
    (run / "checkpoint").unlink()
    (run / "ledger.pub").write_bytes(b"\xff no key")
    with pytest.raises(RunError, match=r"or its ledger\.pub was damaged: nothing is written into it"):
        run_recipe(recipe, out=run, device="cpu")


def test_a_directory_that_can_t_be_written_is_one_line(recipe, tmp_path, monkeypatch):
    opened = os.open

    def refuse(path, flags, *mode, **names):
        if str(path).endswith(".jsonl") and flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return opened(path, flags, *mode, **names)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(
        RunError, match=r"ledger\.jsonl: cannot be opened for writing \(Read-only file system\)"
    ):
        run_recipe(recipe, out=tmp_path / "run", device="cpu")


def test_two_processes_on_one_run_are_told_apart(recipe, tmp_path):
    out = tmp_path / "run"
    with LineFile(out / "ledger.jsonl"):
        shutil.copy(recipe, out / "recipe.toml")
        with pytest.raises(
            RunError, match="another process is writing this run; wait for it or use another --out"
        ):
            run_recipe(recipe, out=out, device="cpu")


def test_half_a_run_is_not_continued(recipe, run):
    """Copied without its first model, and without its end."""
    shutil.rmtree(run / "checkpoints/pretrain")
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (run / "ledger.jsonl").write_bytes(b"".join(lines[:-6]))
    with pytest.raises(
        RunError, match=r"has \d+ lines, its seal counts \d+: the end is missing; restore the file"
    ):
        run_recipe(recipe, out=run, device="cpu")
    (run / "checkpoint").unlink()
    with pytest.raises((RunError, InputError), match="checkpoints/pretrain"):
        run_recipe(recipe, out=run, device="cpu")


def test_a_ledger_of_a_newer_version_is_named(run, capsys):
    lines = (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    last = json.loads(lines[-1]) | {"kind": "holograms"}
    (run / "ledger.jsonl").write_bytes(
        b"".join(lines[:-1]) + json.dumps(last, separators=(",", ":")).encode() + b"\n"
    )
    with pytest.raises(RunError, match="of the kind 'holograms', unknown here: a newer clearseek wrote it"):
        read_run(run)
    for command in (
        ["verify", str(run)],
        ["replay", str(run), "--sample", "1"],
        ["dispute", str(run), str(run)],
    ):
        assert main(["ledger", *command]) == 1
        assert "a newer clearseek wrote it" in capsys.readouterr().err


def test_a_clock_that_went_back_is_said_and_changes_no_duration(recipe, tmp_path):
    out = tmp_path / "run"
    assert run_in_child(recipe, out, overrides=["rl.steps=1"]) is None
    for name in ("checkpoint", "ledger.pub", "cost.note"):
        (out / name).unlink()
    lines = (out / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (out / "ledger.jsonl").write_bytes(b"".join(lines[:-2]))  # killed before its end
    timings = out / "timings.jsonl"
    ahead = [json.loads(line) for line in timings.read_text().splitlines()]
    timings.write_text("".join(json.dumps(r | {"time": r["time"] + 86400}) + "\n" for r in ahead))
    notes = Notes()
    found = run_recipe(recipe, overrides=["rl.steps=1"], out=out, device="cpu", progress=notes)
    (told,) = [text for text in notes.said if "clock" in text]
    assert told.startswith("this machine's clock stands 86")
    assert all(stage["wall_seconds"] >= 0 for stage in found.report["stages"])
    verify_run(out)
