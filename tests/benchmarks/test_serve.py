"""What the server's benchmark is asked for wrongly is one line."""

import importlib.util
import sys

import pytest

if importlib.util.find_spec("fastapi") is None:
    pytest.skip("fastapi is not installed", allow_module_level=True)

from benchmarks import serve


def test_one_turn_has_no_spread(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["serve", "--turns", "1", "--model", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        serve.options()
    assert ended.value.code == 2
    assert "--turns 1: at least 2" in capsys.readouterr().err
