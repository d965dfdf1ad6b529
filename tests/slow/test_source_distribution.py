"""The packages themselves, where hatchling is here: a source distribution has the page, and needs no npm."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from clearseek.serve.page import site

pytest.importorskip("hatchling")
ROOT = Path(__file__).resolve().parents[2]


def build(source, target, kind):
    """A distribution, made where npm fails."""
    program = target / "npm"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
    environment = os.environ | {"PATH": f"{target}:/usr/bin:/bin"}
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = target.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return made, (done.stdout + done.stderr).decode()


def test_a_source_distribution_carries_the_page_and_a_wheel_does_without(tmp_path):
    if not site.is_built():
        pytest.skip("the page is not built; make page")
    targets = [tmp_path / name for name in ("sdist", "wheel", "bare")]
    for target in targets:
        target.mkdir()
    made, _ = build(ROOT, targets[0], "sdist")
    with tarfile.open(made) as archive:
        archive.extractall(tmp_path, filter="data")
    (source,) = tmp_path.glob("clearseek-*")
    made, _ = build(source, targets[1], "wheel")
    assert "clearseek/serve/static/index.html" in zipfile.ZipFile(made).namelist()
    shutil.rmtree(source / "clearseek" / "serve" / "static")
    made, said = build(source, targets[2], "wheel")
    names = zipfile.ZipFile(made).namelist()
    assert not [name for name in names if "serve/static" in name]
    assert "clearseek/serve/page/site.py" in names
    assert "the package gets no page" in said
