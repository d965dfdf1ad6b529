"""A directory is whole or not there, and what stood there before stays until then."""

import errno
import os
import resource
import signal
import subprocess
import sys

import pytest

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.lines import file_sha256
from clearseek.model import directory
from clearseek.model.directory import write_directory


@pytest.fixture
def final(tmp_path):
    """A finished checkpoint that is about to be written again."""
    with write_directory(tmp_path / "runs" / "model") as partial:
        (partial / "weights").write_text("old")
    return tmp_path / "runs" / "model"


def names(path):
    return sorted(entry.name for entry in path.iterdir())


def write_half(final, error):
    """Begin to write, with the old one standing, and fail."""
    with write_directory(final) as partial:
        assert (final / "weights").read_text() == "old"
        (partial / "weights").write_text("half")
        raise error


def assert_untouched(final):
    assert (final / "weights").read_text() == "old"
    assert names(final.parent) == ["model"]


def test_nothing_is_at_its_place_before_the_end(tmp_path):
    final = tmp_path / "new" / "model"
    with write_directory(final) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text("x")
        assert not final.exists()
        assert partial.parent == final.parent  # a rename, not a copy
    assert (final / "deep" / "file").read_text() == "x"
    assert names(final.parent) == ["model"]


def test_a_directory_is_replaced_whole(final):
    with write_directory(final) as partial:
        (partial / "other").write_text("new")
        assert_old = (final / "weights").read_text()
    assert assert_old == "old"
    assert names(final) == ["other"]
    assert names(final.parent) == ["model"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, r"disk full while writing .*model; earlier checkpoints are intact"),
        (errno.EDQUOT, r"disk quota used up while writing"),
        (errno.EACCES, r"model can't be written \(Permission denied\); earlier checkpoints are intact"),
    ],
)
def test_a_refusing_disk_is_named_and_leaves_no_half(final, code, message):
    with pytest.raises(RunError, match=message):
        write_half(final, OSError(code, os.strerror(code)))
    assert_untouched(final)


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_disk_that_fails_while_syncing_or_renaming_loses_nothing(final, monkeypatch, step):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(directory.os, step, fail)
    with pytest.raises(RunError, match="disk full"), write_directory(final) as partial:
        (partial / "weights").write_text("new")
    assert_untouched(final)


@pytest.mark.parametrize("error", [InputError, RunError, KeyboardInterrupt])
def test_other_errors_pass_through(final, error):
    with pytest.raises(error, match="as it was"):
        write_half(final, error("as it was"))
    assert_untouched(final)


def test_a_file_that_outgrows_the_disk_is_named(final):
    """A real refusal by the kernel, met by safetensors in the middle of a file."""
    import torch

    from clearseek.model.checkpoint import save_tensors

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, limits[1]))
    try:
        with (
            pytest.raises(RunError, match="file size limit met while writing"),
            write_directory(final) as partial,
        ):
            save_tensors(partial / "weights", {"x": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert_untouched(final)


KILLED = """
import os, signal, sys
from pathlib import Path
from clearseek.model import directory
replace, when, seen = os.replace, int(sys.argv[2]), []
def killed(source, target):
    seen.append(target)
    if len(seen) == when:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
directory.os.replace = killed
with directory.write_directory(Path(sys.argv[1])) as partial:
    (partial / "weights").write_text("new")
"""


@pytest.mark.parametrize("when", [1, 2])
def test_a_kill_at_either_rename_loses_nothing(final, when):
    """Before the old one is moved away, and between that and the new one taking its place."""
    command = [sys.executable, "-c", KILLED, str(final), str(when)]
    assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGKILL
    if when == 1:
        assert (final / "weights").read_text() == "old"
    assert len(names(final.parent)) == 2

    # what comes next finds the old one in its place, and takes the rubble away
    with pytest.raises(KeyboardInterrupt):
        write_half(final, KeyboardInterrupt())
    assert_untouched(final)


def test_rubble_of_a_kill_after_the_last_rename_is_cleared(final):
    (final.parent / ".model.replaced").mkdir()
    (final.parent / ".model.replaced" / "weights").write_text("older")
    with pytest.raises(KeyboardInterrupt):
        write_half(final, KeyboardInterrupt())
    assert_untouched(final)


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert file_sha256(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
