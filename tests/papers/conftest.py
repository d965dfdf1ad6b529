"""A real run, tiny and sealed, and its papers: made once, copied by whoever changes them."""

import shutil
from pathlib import Path

import pytest

from clearseek.papers.facts import read_facts
from clearseek.papers.release import write_papers
from clearseek.recipe.run import run_recipe
from tests.papers.borrowed_run import borrowed_run
from tests.papers.stated import STATED
from tests.recipe.tiny_run import RECIPE, write_recipe


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run` and its papers, `run-papers`."""
    folder = tmp_path_factory.mktemp("papers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEARSEEK_MODEL_KEY", str(folder / "model.key"))
        patch.setenv("CLEARSEEK_LEDGER_KEY", str(folder / "ledger.key"))
        run_recipe(write_recipe(folder, RECIPE), out=folder / "run", device="cpu")
        write_papers(read_facts(folder / "run", STATED), folder / "run-papers")
    return folder


@pytest.fixture(scope="session")
def borrowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a `run` on a base and on rows from elsewhere, and its papers, `run-papers`."""
    folder = tmp_path_factory.mktemp("borrowed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEARSEEK_MODEL_KEY", str(folder / "model.key"))
        patch.setenv("CLEARSEEK_LEDGER_KEY", str(folder / "ledger.key"))
        write_papers(read_facts(borrowed_run(folder), STATED), folder / "run-papers")
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same folder, to be changed."""
    monkeypatch.setenv("CLEARSEEK_MODEL_KEY", str(made / "model.key"))
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(made / "ledger.key"))
    shutil.copytree(made, tmp_path / "made")
    return tmp_path / "made"
