"""Building and loading the kernels: whatever is missing, the plain forms compute, and the reason is told."""

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from clearseek.model import device, layers
from clearseek.model.kernels import library

SMALL = 'extern "C" int answer() { return 42; }\n'  # compiles in a second
requires_kernels = pytest.mark.skipif(
    library.why_not() is not None, reason=f"no kernels: {library.why_not()}"
)


@pytest.fixture
def unloaded(monkeypatch, tmp_path):
    """A process that has not loaded the kernels, on a processor that can run them, with an empty cache."""
    real, mine = library._load, threading.get_ident()
    monkeypatch.setattr(  # for this thread alone: those that earlier tests left may compute beside it
        library, "_load", lambda: real.__wrapped__() if threading.get_ident() == mine else real()
    )
    monkeypatch.setattr(library, "_processor_flags", lambda: frozenset(library._NEEDED))
    monkeypatch.setattr(library.sys, "platform", "linux")
    monkeypatch.setattr(library.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(library.sys, "prefix", str(tmp_path / "environment"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv(library.OFF, raising=False)
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path


@pytest.fixture
def small(unloaded, monkeypatch):
    """Kernels of one line, built with flags that any compiler for this machine takes."""
    (unloaded / "source").mkdir()
    (unloaded / "source" / "one.cpp").write_text(SMALL)
    monkeypatch.setattr(library, "_HERE", unloaded / "source")
    monkeypatch.setattr(library, "_FLAGS", ("-shared", "-fPIC"))
    if not library._compiler():
        pytest.skip("no C++ compiler")
    return unloaded


def program(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def assert_plain(reason):
    """The reason is told, and a norm in bf16 is computed all the same."""
    assert reason in str(library.why_not())
    x = torch.randn(3, 32, dtype=torch.bfloat16)
    assert not library.fits(x.dtype, x, 32)
    assert layers.RMSNorm(32, 1e-6)(x).dtype == torch.bfloat16


def test_a_variable_turns_them_off(unloaded, monkeypatch):
    monkeypatch.setenv(library.OFF, "0")
    assert_plain("CLEARSEEK_KERNELS=0")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert "without fused kernels: CLEARSEEK_KERNELS=0" in device.choose_device("cpu").reason


def test_another_system_is_told(unloaded, monkeypatch):
    monkeypatch.setattr(library.platform, "machine", lambda: "aarch64")
    assert_plain("Linux on x86-64")


@pytest.mark.parametrize("flag", ["avx512_bf16", "avx512_vnni"])
def test_a_processor_without_the_instructions_is_told(unloaded, monkeypatch, flag):
    monkeypatch.setattr(library, "_processor_flags", lambda: frozenset(library._NEEDED) - {flag})
    assert_plain(f"lacks {flag}")


def test_a_system_that_hides_its_processor_has_no_flags(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(library.Path, "read_text", refuse)
    assert library._processor_flags() == frozenset()


def test_no_compiler_is_told(unloaded, monkeypatch):
    monkeypatch.setenv("PATH", str(unloaded))
    assert_plain("no C++ compiler")
    monkeypatch.setenv("CXX", "nowhere++ -O1")
    assert_plain("CXX=nowhere++ -O1")


def test_a_compiler_that_fails_is_quoted(unloaded, monkeypatch):
    monkeypatch.setenv("CXX", program(unloaded / "c++", "echo 'fatal: no space' >&2; echo more >&2; exit 1"))
    assert_plain("building them failed (fatal: no space)")


def test_a_compiler_that_hangs_is_left(unloaded, monkeypatch):
    monkeypatch.setattr(library, "BUILD_SECONDS", 0.2)
    monkeypatch.setenv("CXX", program(unloaded / "c++", "exec sleep 30"))
    assert_plain("timed out")


def test_what_cannot_be_loaded_is_told(unloaded, monkeypatch):
    """A compiler that makes something else than a library."""
    text = 'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"'
    monkeypatch.setenv("CXX", program(unloaded / "c++", text))
    assert_plain("building them failed")


def test_the_second_process_finds_what_the_first_built(small, monkeypatch):
    assert library.why_not() is None
    assert library.library().answer() == 42
    monkeypatch.setattr(library.subprocess, "run", lambda *_, **__: pytest.fail("built again"))
    assert library.why_not() is None
    assert [path.suffix for path in (small / "environment" / "cache" / "kernels").iterdir()] == [".so"]


def test_an_unwritable_environment_uses_the_home(small):
    (small / "environment").write_text("a file: nothing can be made below it")
    assert library.why_not() is None
    assert len(list((small / "home" / ".cache" / "clearseek" / "kernels").iterdir())) == 1


def test_nowhere_to_keep_them_leaves_nothing_behind(small, monkeypatch):
    """Built for this process alone; what was built is gone from the disk, not from the process."""
    (small / "environment").write_text("")
    (small / "home").write_text("")
    (small / "temporary").mkdir()
    monkeypatch.setattr(library.tempfile, "tempdir", str(small / "temporary"))
    assert library.library().answer() == 42
    assert list((small / "temporary").iterdir()) == []


def test_nowhere_to_write_at_all_is_told(small, monkeypatch):
    (small / "environment").write_text("")
    (small / "home").write_text("")
    monkeypatch.setattr(library.tempfile, "tempdir", str(small / "missing"))
    assert_plain("building them failed")


def test_a_user_without_a_home_is_no_error(small, monkeypatch):
    def homeless(_):
        raise RuntimeError("Could not determine home directory.")

    (small / "environment").write_text("")
    monkeypatch.setattr(library.Path, "expanduser", homeless)
    assert library.why_not() is None


def test_two_processes_may_build_at_once(small, monkeypatch):
    """Both start before either is done; each loads one, and one file is left."""
    compiler = library._compiler()[0]
    waiting = (
        f'while [ $(ls {small}/at | wc -l) -lt 2 ]; do touch {small}/at/$$; sleep 0.02; done; {compiler} "$@"'
    )
    (small / "at").mkdir()
    monkeypatch.setenv("CXX", program(small / "c++", waiting))
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    processes = [
        context.Process(target=lambda: answers.put((library.why_not(), library.library().answer())))
        for _ in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert [answers.get() for _ in processes] == [(None, 42)] * 2
    assert len(list((small / "environment" / "cache" / "kernels").glob("*.so"))) == 1


def test_another_processor_or_source_has_a_file_of_its_own(small, monkeypatch):
    folder = small / "environment" / "cache" / "kernels"
    folder.mkdir(parents=True)
    names = [library._built(folder).name]
    monkeypatch.setattr(library, "_processor_flags", lambda: frozenset([*library._NEEDED, "amx_tile"]))
    names.append(library._built(folder).name)
    (small / "source" / "one.cpp").write_text(SMALL.replace("42", "43"))
    names.append(library._built(folder).name)
    assert len(set(names)) == 3
    assert {path.name for path in folder.glob("*.so")} == set(names)


def test_importing_builds_and_loads_nothing():
    """Law 9, for everything that uses them."""
    code = (
        "import clearseek.engine.session, clearseek.train.rl\n"
        "from clearseek.model.kernels import library\n"
        "print(library._load.cache_info().currsize)"
    )
    told = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert told.stdout == "0\n"


@requires_kernels
def test_every_call_names_a_function_of_the_library():
    for path in (Path(library.__file__).parent).glob("*.py"):
        for line in path.read_text().splitlines():
            if 'call("' in line:
                assert getattr(library.library(), line.split('call("')[1].split('"')[0])
    assert os.path.exists(library.library()._name)
