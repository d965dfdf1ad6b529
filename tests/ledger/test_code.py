"""The code that made a run by its hash and its commit, in a copy of the package and in checkouts of our own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from clearseek.ledger import code

PACKAGE = Path(code.__file__).resolve().parent.parent


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of two sources and something else."""
    folder = tmp_path / "clearseek"
    (folder / "room").mkdir(parents=True)
    (folder / "room/a.py").write_text("A = 1\n")
    (folder / "b.cpp").write_text("int b;\n")
    (folder / "note.md").write_text("no code\n")
    return folder


def git(package: Path, *words: str) -> str:
    named = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *named, *words], cwd=package.parent, capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout.strip()


@pytest.fixture
def committed(package: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("no git here")
    git(package, "init", "-q")
    git(package, "add", "clearseek")
    git(package, "commit", "-qm", "one")
    return package


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="the shell's tool is not on this system")
def test_the_hash_is_what_a_shell_makes_of_it() -> None:
    command = (
        "find clearseek -name '*.py' -o -name '*.h' -o -name '*.cpp' | LC_ALL=C sort | xargs sha256sum | "
        "sha256sum"
    )
    told = subprocess.run(
        command, shell=True, cwd=PACKAGE.parent, capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout.split()[0] == code.code_sha256()


def test_every_source_counts_and_nothing_else(package: Path) -> None:
    before = code.hash_of_sources(package)
    (package / "note.md").write_text("still no code\n")
    assert code.hash_of_sources(package) == before
    found = {before}
    for name, text in (("room/a.py", "A = 2\n"), ("b.cpp", "int c;\n"), ("room/new.h", "")):
        (package / name).write_text(text)
        found.add(code.hash_of_sources(package))
    (package / "room/a.py").rename(package / "room/z.py")
    found.add(code.hash_of_sources(package))
    assert len(found) == 5


def test_a_checkout_tells_its_commit_and_whether_it_was_changed(committed: Path) -> None:
    commit = git(committed, "rev-parse", "HEAD")
    (committed.parent / "elsewhere.txt").write_text("not the package's")
    assert code.checkout(committed) == {"commit": commit, "dirty": False}
    (committed / "room/new.py").write_text("")
    assert code.checkout(committed) == {"commit": commit, "dirty": True}
    (committed / "room/new.py").unlink()
    (committed / "b.cpp").write_text("int c;\n")
    assert code.checkout(committed) == {"commit": commit, "dirty": True}


def test_variables_of_git_do_not_lead_elsewhere(committed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(committed.parent / "nowhere"))
    found = code.checkout(committed)
    monkeypatch.delenv("GIT_DIR")
    assert found == {"commit": git(committed, "rev-parse", "HEAD"), "dirty": False}


def test_without_a_checkout_a_commit_or_git_there_is_none(
    package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert code.checkout(package) is None
    if shutil.which("git"):
        git(package, "init", "-q")
        assert code.checkout(package) is None
    (package.parent / ".git").mkdir(exist_ok=True)
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    assert code.checkout(package) is None


def test_a_git_that_does_not_answer_is_waited_for_so_long(
    package: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (package.parent / ".git").mkdir()
    (tmp_path / "bin").mkdir()
    slow = tmp_path / "bin/git"
    slow.write_text("#!/bin/sh\nexec sleep 30\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(code, "_GIT_SECONDS", 0.2)
    assert code.checkout(package) is None
