"""The chain, replay after a kill, torn lines and full disks."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearseek.config.errors import RunError
from clearseek.ledger.append import is_being_written
from clearseek.ledger.lines import encode_line, number
from clearseek.ledger.log import Ledger, read, verify


def write_three(path: Path) -> Ledger:
    ledger = Ledger(path)
    ledger.append("run", recipe="r1-mini", seed=1)
    ledger.append("step", "pretrain", step=1, loss=2.5, expert={"load": [1, 2]})
    ledger.append("step", "pretrain", step=2, loss=2.25, expert={"load": [1, 2]})
    return ledger


def test_each_line_carries_its_number_and_the_hash_of_the_line_before(tmp_path: Path) -> None:
    with write_three(tmp_path / "ledger.jsonl") as ledger:
        assert len(ledger) == 3
    lines = (tmp_path / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    assert lines[0] == b'{"line":0,"prev":"' + b"0" * 64 + b'","kind":"run","recipe":"r1-mini","seed":1}\n'
    for n, record in enumerate(read(tmp_path / "ledger.jsonl")):
        assert record["line"] == n
        assert n == 0 or record["prev"] == hashlib.sha256(lines[n - 1]).hexdigest()
    assert verify(tmp_path / "ledger.jsonl") == (3, hashlib.sha256(lines[2]).hexdigest(), False)


def test_a_line_is_canonical(tmp_path: Path) -> None:
    assert encode_line({"b": 0.1, "a": "한글 <b>\n", "c": [1e-5, True, None]}) == (
        '{"b":0.1,"a":"한글 <b>\\n","c":[1e-05,true,null]}\n'.encode()
    )
    odd = {"x": float("nan"), "y": [float("inf"), -float("inf")]}
    assert encode_line(odd) == b'{"x":"nan","y":["inf","-inf"]}\n'
    assert json.loads(encode_line({"x": "\ud800"})) == {"x": "\ud800"}
    assert number("nan") != number("nan")
    assert [number(value) for value in ("-inf", 3, None, "x", True)] == [-float("inf"), 3, None, None, None]


FINITE = st.floats(allow_nan=False, allow_infinity=False)


@given(st.dictionaries(st.text(), st.recursive(st.integers() | st.text() | FINITE, st.lists)))
def test_what_is_written_is_read_back(record: dict[str, object]) -> None:
    line = encode_line(record)
    assert line.count(b"\n") == 1
    assert json.loads(line) == record


@pytest.mark.parametrize("value", [Path("x"), {1: 2}, {"a": [object()]}, b"x"])
def test_what_is_not_json_is_refused_by_name(tmp_path: Path, value: object) -> None:
    with Ledger(tmp_path / "l") as ledger, pytest.raises(TypeError, match="loss"):
        ledger.append("step", loss=value)
    assert read(tmp_path / "l") == []


def test_reserved_names_are_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l") as ledger, pytest.raises(ValueError, match="prev"):
        ledger.append("step", prev="x")


def test_replay_compares_and_does_not_write_twice(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write_three(path).close()
    before = path.read_bytes()
    with Ledger(path) as ledger:
        ledger.rewind(1)
        assert (len(ledger), ledger.replaying) == (1, True)
        ledger.append("step", "pretrain", step=1, loss=2.5, expert={"load": [1, 2]})
        ledger.append("step", "pretrain", step=2, loss=2.25, expert={"load": [1, 2]})
        assert not ledger.replaying
        assert path.read_bytes() == before
        ledger.append("step", "pretrain", step=3, loss=2.0, expert={"load": [1, 2]})
    assert verify(path).num_lines == 4
    with Ledger(path) as ledger:
        ledger.rewind(0)
        assert ledger.head == "0" * 64


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"step": 1, "loss": 2.5000001, "expert": {"load": [1, 2]}}, ["`loss`", "2.5,", "2.5000001"]),
        ({"step": 1, "loss": 2.5, "expert": {"load": [1, 3]}}, ["`expert.load`", "[1, 2]", "[1, 3]"]),
        ({"step": 1, "loss": 2.5}, ["`expert`", "now nothing"]),
        ({"step": 1.0, "loss": 2.5, "expert": {"load": [1, 2]}}, ["`step`", "1.0"]),
        ({"step": 1, "loss": 2.5, "expert": {"load": [1.0, 2]}}, ["`expert.load`", "[1.0, 2]"]),
        ({"loss": 2.5, "step": 1, "expert": {"load": [1, 2]}}, ["order of the fields"]),
    ],
)
def test_replay_names_line_field_and_both_values(
    tmp_path: Path, fields: dict[str, object], named: list[str]
) -> None:
    path = tmp_path / "ledger.jsonl"
    write_three(path).close()
    before = path.read_bytes()
    with Ledger(path) as ledger:
        ledger.rewind(1)
        with pytest.raises(RunError, match="line 1") as caught:
            ledger.append("step", "pretrain", **fields)
    assert all(part in str(caught.value) for part in named), caught.value
    assert path.read_bytes() == before


def test_rewinding_past_the_end_is_an_error(tmp_path: Path) -> None:
    with write_three(tmp_path / "l") as ledger:
        with pytest.raises(RunError, match="line 4 but the ledger has only 3"):
            ledger.rewind(4)
        with pytest.raises(ValueError, match="at least 0"):
            ledger.rewind(-1)


@pytest.mark.parametrize("cut", range(1, 120, 7))
def test_a_torn_last_line_is_cut_off(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "ledger.jsonl"
    write_three(path).close()
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    path.write_bytes(whole[: -min(cut, len(last) - 1)])
    assert verify(path) == (2, verify(path).sha256, True)
    assert len(read(path)) == 2
    with Ledger(path) as ledger:
        assert len(ledger) == 2
        ledger.append("step", "pretrain", step=2, loss=2.25, expert={"load": [1, 2]})
    assert path.read_bytes() == whole


WRITER = """
import sys
from clearseek.ledger.log import Ledger
ledger = Ledger(sys.argv[1])
if len(ledger) > 5: ledger.rewind(5)
for step in range(len(ledger), 10**9):
    ledger.append("step", "s", step=step, text="x" * (step * 7919 % 60000))
    if step == 5: print("going", flush=True)
"""


def test_a_run_killed_at_any_moment_replays_to_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    seen = b""
    for _ in range(4):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        assert is_being_written(path)
        writer.send_signal(signal.SIGKILL)
        writer.wait(timeout=20)
        assert not is_being_written(path)
        whole = path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1]
        assert whole.startswith(seen)
        assert verify(path).num_lines > 5
        seen = whole


def change(data: bytes, line: int, old: bytes, new: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    return b"".join(lines)


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda data: change(data, 1, b"0x1.4", b"2.4"), "line 2 does not follow.*changed after"),
        (lambda data: change(data, 0, b"r1-mini", b"r1-best"), "line 1 does not follow"),
        (lambda data: b"".join(data.splitlines(keepends=True)[::2]), "line 1 does not.*says it is line 2"),
        (lambda data: b"".join(data.splitlines(keepends=True)[1:]), "line 0 does not"),
        (lambda data: data + b"hello\n", "line 3 does not.*not a record"),
        (lambda data: data + b"3\n", "line 3 does not.*not a record"),
        (lambda data: change(data, 2, b"}}\n", b"\n"), "line 2 is not JSON"),
    ],
)
def test_tampering_is_found_and_the_line_named(tmp_path: Path, tamper: object, message: str) -> None:
    path = tmp_path / "ledger.jsonl"
    write_three(path).close()
    path.write_bytes(tamper(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(RunError, match=message):
        verify(path)
    if "JSON" not in message:
        with pytest.raises(RunError, match=message):
            Ledger(path)


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "ledger.jsonl"
    with write_three(path) as ledger:
        before = path.read_bytes()
        real_write, room = os.write, [20]

        def full(fd: int, data: bytes) -> int:
            if not room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real_write(fd, data[: room.pop()])

        monkeypatch.setattr(os, "write", full)
        with pytest.raises(RunError, match=r"line 3 could not be .*the disk is full\); nothing earlier"):
            ledger.append("step", "pretrain", step=3, loss=2.0)
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert len(ledger) == 3
        ledger.append("step", "pretrain", step=3, loss=2.0)
    assert verify(path).num_lines == 4


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_truly_full_device_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "ledger.jsonl").symlink_to("/dev/full")
    ledger = Ledger.__new__(Ledger)
    ledger.path, ledger.lines = tmp_path / "ledger.jsonl", []
    ledger._fd = os.open("/dev/full", os.O_WRONLY)
    with ledger, pytest.raises(RunError, match="disk is full"):
        ledger.write(b"{}\n")


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with write_three(tmp_path / "l"), pytest.raises(RunError, match="another process"):
        Ledger(tmp_path / "l")
    Ledger(tmp_path / "l").close()


def test_a_forked_worker_does_not_keep_the_run_locked(tmp_path: Path) -> None:
    ledger = write_three(tmp_path / "l")
    pid = os.fork()
    if pid == 0:
        signal.pause()
        os._exit(0)
    try:
        ledger.close()
        Ledger(tmp_path / "l").close()
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_path_that_cannot_be_opened_is_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be opened"):
        Ledger(tmp_path / "file" / "ledger.jsonl")
    assert not is_being_written(tmp_path / "none")


def test_the_room_needs_only_the_standard_library() -> None:
    code = (
        "import sys; import clearseek.ledger.log, clearseek.ledger.timings, clearseek.ledger.report, "
        "clearseek.ledger.doctor, clearseek.ledger.page\n"
        "assert not {'torch', 'numpy', 'pydantic', 'jinja2'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_ledger_of_an_older_form_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(encode_line({"line": 0, "prev": "0" * 64, "kind": "step", "loss": 2.5}))
    with Ledger(path) as ledger:
        ledger.rewind(0)
        with pytest.raises(RunError, match="older clearseek"):
            ledger.append("step", loss=2.5)
    assert read(path)[0]["loss"] == 2.5
