"""A run that builds the indexes of its trace when it has ended, and says so."""

import pytest

from clearseek.config.progress import SilentProgress
from clearseek.ledger.verifier import verify_run
from clearseek.recipe.run import run_recipe
from clearseek.trace.tracer import Tracer
from tests.recipe.tiny_run import write_recipe


class Notes(SilentProgress):
    """Keeps what it is told."""

    def __init__(self):
        self.lines = []

    def note(self, text):
        self.lines.append(text)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def run_of(folder, **settings):
    notes = Notes()
    result = run_recipe(write_recipe(folder), out=folder / "tiny", device="cpu", progress=notes, **settings)
    return result.run_dir, notes.lines


def test_a_run_indexes_itself_after_its_seal_and_its_first_trace_builds_nothing(tmp_path, cache):
    run, notes = run_of(tmp_path, overrides=["ledger.index=true"])
    assert notes[-1].startswith("indexed for tracing: ")
    assert notes[-1].endswith(" s")
    verify_run(run)
    assert not list(run.rglob("suffixes"))
    built = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert any(path.name == "suffixes" for path in built)
    asked = []
    Tracer(run, asked.append)
    assert asked == []
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*")} == built


def test_a_run_indexes_nothing_unless_it_is_asked(tmp_path, cache):
    run, notes = run_of(tmp_path)
    assert not any("index" in line for line in notes)
    assert not (cache / "clearseek" / "trace").exists()
    asked = []
    Tracer(run, asked.append)
    assert any(line.startswith("indexing ") for line in asked)


def test_the_same_command_again_builds_what_a_kill_left_out(tmp_path, cache):
    """Also where the indexes can't be kept: the run has ended, and what it lacks is told."""
    cache.write_text("no folder")
    run, notes = run_of(tmp_path, overrides=["ledger.index=true"])
    assert notes[-1].startswith(f"{run} is finished, but not indexed for tracing: ")
    assert "can't be kept" in notes[-1]
    verify_run(run)
    cache.unlink()
    _, notes = run_of(tmp_path, overrides=["ledger.index=true"])
    assert any("is finished and sealed" in line for line in notes)
    assert notes[-1].startswith("indexed for tracing: ")
