"""Progress: plain lines for logs, bars for terminals, silence on later ranks."""

import io

import pytest
from rich.console import Console

from clearseek.cli.bars import BarProgress
from clearseek.cli.progress import PlainProgress, duration, open_progress
from clearseek.config.progress import SilentProgress


def test_plain_lines_are_few_but_the_last_step_speaks(capsys):
    progress = PlainProgress(seconds_between_lines=1000)
    progress.note("cpu in float32")
    progress.stage("base", "pretrain", 2, 9)
    for done in range(1, 51):
        progress.step(done, 50, loss=2.0 / done)
    progress.end()
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert lines[:2] == ["cpu in float32", "[2/9] base (pretrain)"]
    assert len(lines) == 3
    assert lines[2].startswith("  base 50/50, ")
    assert lines[2].endswith("loss 0.04")


def test_plain_rate_counts_from_the_first_step_seen(monkeypatch, capsys):
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("clearseek.cli.progress.time.monotonic", lambda: next(clock))
    progress = PlainProgress(seconds_between_lines=0)
    progress.stage("rl", "rl", 1, 1)
    progress.step(500, 1000)
    progress.step(520, 1000)
    assert capsys.readouterr().err.splitlines()[-1] == "  rl 520/1000, 2/s, 4 min 00 s left"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations_read_well(seconds, words):
    assert duration(seconds) == words


def test_bars_show_stage_count_and_numbers():
    stream = io.StringIO()
    progress = BarProgress(Console(file=stream, force_terminal=True, width=120, color_system=None))
    progress.stage("base", "pretrain", 1, 2)
    progress.step(1, 10, loss=3.0)
    progress.step(10, 10, loss=2.25)
    progress.note("a [note] as it is")
    progress.end()
    text = stream.getvalue()
    assert "base (pretrain)" in text
    assert "10/10" in text
    assert "loss 2.25" in text
    assert "a [note] as it is" in text


def test_bars_ignore_steps_before_a_stage():
    BarProgress(Console(file=io.StringIO())).step(1, 2)


def test_pipe_gets_plain_lines_and_later_ranks_silence(monkeypatch):
    assert isinstance(open_progress(), PlainProgress)
    monkeypatch.setenv("RANK", "1")
    assert isinstance(open_progress(), SilentProgress)
