"""The clock: sessions, what is measured when nothing is given, and reading what a kill left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clearseek.config.errors import RunError
from clearseek.ledger import machine, process
from clearseek.ledger.timings import Timings, read_timings


def spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_a_session_begins_with_the_machine_and_its_own_number(tmp_path: Path) -> None:
    for session in (1, 2, 3):
        with Timings(tmp_path / "timings.jsonl") as timings:
            assert timings.session == session
    first, _, third = read_timings(tmp_path / "timings.jsonl")
    assert first["kind"] == "session"
    assert first["machine"]["cores"] >= 1
    assert third["session"] == 3
    assert abs(first["time"] - time.time()) < 60
    assert first["wall_seconds"] >= 0


def test_what_is_not_given_is_measured_since_the_last_line(tmp_path: Path) -> None:
    with Timings(tmp_path / "t") as timings:
        timings.start_stage("sft")
        spin(0.05)
        first = timings.append("step", "sft", 1, tokens=100, flops=1e9)
        spin(0.1)
        second = timings.append("step", "sft", 2, tokens=100, flops=1e9)
        whole = timings.finish_stage("sft", tokens=200, flops=2e9)
    assert 0.03 < first["cpu_seconds"] < 0.2
    assert second["wall_seconds"] >= 0.09
    assert second["tokens_per_second"] == pytest.approx(100 / second["wall_seconds"])
    assert whole["wall_seconds"] >= first["wall_seconds"] + second["wall_seconds"]
    assert whole["peak_memory_bytes"] > 1 << 20
    assert [line["kind"] for line in read_timings(tmp_path / "t")] == [
        "session", "stage_started", "step", "step", "stage",
    ]  # fmt: skip


def test_what_is_given_is_kept(tmp_path: Path) -> None:
    with Timings(tmp_path / "t") as timings:
        timings.append("step", "rl", 1, wall_seconds=2.0, cpu_seconds=4.0, tokens=10, peak_memory_bytes=7)
    line = read_timings(tmp_path / "t")[-1]
    assert (line["wall_seconds"], line["cpu_seconds"], line["tokens_per_second"]) == (2.0, 4.0, 5.0)
    assert line["peak_memory_bytes"] == 7


def test_torn_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "t"
    with Timings(path) as timings:
        timings.append("step", "rl", 1)
    with path.open("ab") as file:
        file.write(b"\x00\xffrubbish\n[1]\n{}\n" + b'{"kind":"step","sta')
    assert [line["kind"] for line in read_timings(path)] == ["session", "step"]
    with Timings(path) as timings:
        assert timings.session == 2
    assert [line["kind"] for line in read_timings(path)] == ["session", "step", "session"]
    assert read_timings(tmp_path / "missing") == []


def test_a_full_disk_is_a_named_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    with Timings(tmp_path / "t") as timings:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RunError, match="disk is full"):
            timings.append("step", "rl", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="living children are counted on Linux only")
def test_living_children_are_counted() -> None:
    before, memory = process.cpu_seconds(), process.peak_memory_bytes() or 0
    code = "x = bytearray(60_000_000)\nfor _ in range(10**7): pass\nprint(1, flush=True)\ninput()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child = subprocess.Popen([sys.executable, "-c", code], **pipes)  # type: ignore[call-overload]
    child.stdout.readline()
    living, grown = process.cpu_seconds() - before, (process.peak_memory_bytes() or 0) - memory
    child.communicate(b"\n")
    assert living > 0.1
    assert grown > 50_000_000
    assert process.cpu_seconds() - before >= living - 0.05
    assert 0 < process.age_seconds() < 3600


def test_the_machine_is_described_without_failing() -> None:
    facts = machine.describe_machine()
    assert facts["cores"] >= 1
    assert set(facts) == {"processor", "cores", "memory_bytes", "system", "python"}
