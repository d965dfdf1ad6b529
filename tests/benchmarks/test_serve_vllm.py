"""The benchmark of both servers: medians and targets, and that only one of them runs at a time."""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import serve_vllm
from benchmarks.serve_vllm import Running, commands, end, medians, targets

COUNTS = """
import sys, time
while True:
    print("tick", flush=True)
    time.sleep(0.01)
"""


def turn(throughput: float, first: float) -> dict:
    return {"output_throughput": throughput, "median_ttft_ms": first}


def report(ours: list[dict], theirs: list[dict]) -> dict:
    return {
        name: {"turns": turns, "median": medians(turns)}
        for name, turns in (("clearseek", ours), ("vllm", theirs))
    }


def test_targets_go_by_the_medians_of_the_turns():
    ours = [turn(90, 10), turn(110, 30), turn(1000, 20)]
    rows = targets(report(ours, [turn(100, 20), turn(100, 20), turn(100, 20)]))["targets"]
    assert [row["is"] for row in rows] == pytest.approx([1.1, 1.0])
    assert all(row["met"] for row in rows)
    rows = targets(report(ours, [turn(111, 19)]))["targets"]
    assert not any(row["met"] for row in rows)


def test_a_figure_that_a_turn_lacks_has_no_median():
    assert medians([{"a": 1.0, "b": 2.0}, {"a": 3.0}]) == {"a": 2.0}


def test_one_server_alone_has_no_targets():
    assert targets({"clearseek": {}}) == {"targets": []}


@pytest.mark.parametrize(("only", "names"), [(None, ["clearseek", "vllm"]), ("vllm", ["vllm"])])
def test_one_server_can_be_left_out(only, names, tmp_path):
    chosen = argparse.Namespace(clients=4, only=only)
    assert list(commands(tmp_path / "model", chosen)) == names


def test_a_server_computes_only_where_it_is_awake(tmp_path):
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", COUNTS], stdout=out, process_group=0)
    try:
        server = Running(process, "nowhere")
        with server.awake():
            assert grows(log, within=20.0)
        time.sleep(0.1)
        assert not grows(log, within=0.3)
        with server.awake():
            assert grows(log, within=20.0)
    finally:
        end(process)
    assert process.wait(20) != 0


def test_no_turns_is_an_error(monkeypatch, capsys):
    monkeypatch.setattr(serve_vllm, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(sys, "argv", ["serve_vllm", "--turns", "0"])
    with pytest.raises(SystemExit):
        serve_vllm.options()
    assert "--turns 0: at least 1" in capsys.readouterr().err


def grows(log: Path, within: float) -> bool:
    """Whether somebody writes to a file."""
    before, until = log.stat().st_size, time.monotonic() + within
    while time.monotonic() < until:
        if log.stat().st_size > before:
            return True
        time.sleep(0.01)
    return False
