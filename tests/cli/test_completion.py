"""Shell completion: the scripts, and what they complete."""

import os
import subprocess
import sys

import pytest

from clearseek.cli.main import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_prints_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    assert "_CLEARSEEK_COMPLETE" in text
    assert f"{shell}_complete" in text


def complete(*words: str) -> list[str]:
    environment = os.environ | {
        "_CLEARSEEK_COMPLETE": "bash_complete",
        "COMP_WORDS": " ".join(("clearseek", *words)),
        "COMP_CWORD": str(len(words)),
    }
    code = "from clearseek.cli.main import main; main([])"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return [line.partition(",")[2] for line in result.stdout.splitlines()]


def test_completes_commands():
    assert complete("ge") == ["generate"]


def test_completes_options():
    assert "--temperature" in complete("generate", "--t")


def test_completes_choices():
    assert complete("run", "--device", "c") == ["cpu", "cuda"]


def test_completes_shipped_recipes(tmp_path, monkeypatch):
    from clearseek.config.shipped import shipped_recipes

    names = [name for name in shipped_recipes() if name.startswith("r1")]
    assert [word for word in complete("run", "r1") if word in names] == names
