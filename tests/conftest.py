"""Before torch is loaded: threads that wait for each other sleep soon, as under the `clearseek` command.

Beside another busy program the tests of models and engine else took seven times as long. Where several processes
share the tests (pytest-xdist), each begins with one thread.
"""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

# no test touches the key that seals the user's own runs
OWN = Path(tempfile.mkdtemp(prefix="clearseek-tests-"))
os.environ["CLEARSEEK_LEDGER_KEY"] = str(OWN / "ledger.key")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_unconfigure():
    """Leave nothing of the tests' own in the machine's folder for temporary files."""
    shutil.rmtree(OWN, ignore_errors=True)


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, for the tests of the page."""
    from tests.serve.page import browsing  # brings the server, which few tests need

    with browsing() as browser:
        yield browser
