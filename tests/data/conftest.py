"""One filtered run for all tests that only look at it."""

from pathlib import Path

import pytest

from tests.data.filtered_run import filtered_run


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return filtered_run(tmp_path_factory.mktemp("filtered"))
