"""The manual's page "Add a model": its file adds a family, and its row passes what every row has to pass."""

import json
import re
import runpy
from pathlib import Path

import pytest

from clearseek.model import families
from clearseek.model.families import config_from_published, config_to_published
from tests.model import published
from tests.model.test_families import check_pieces

PAGE = Path(__file__).parents[2] / "docs" / "add-a-model.md"
MOST_LINES = 60


@pytest.fixture
def added(monkeypatch, tmp_path):
    """The page's family, known for the time of a test, and its row of published shapes."""
    file, row = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(file.splitlines()) <= MOST_LINES
    family = run(tmp_path / "seed_oss.py", file)["FAMILY"]
    table = run(tmp_path / "row.py", "from tests.model.published import *\n" + row)
    monkeypatch.setitem(families.FAMILIES, family.name, family)
    monkeypatch.setitem(families._BY_ARCHITECTURE, family.architecture, family)
    monkeypatch.setitem(published.FAMILIES, family.architecture, table["ROW"][family.architecture])
    return family


def run(path, source):
    """What a file of the page defines."""
    path.write_text(source, encoding="utf-8")
    return runpy.run_path(str(path))


@pytest.mark.parametrize("shape", range(3))
def test_the_pages_family_goes_there_and_back(added, shape, tmp_path):
    table = published.config_json(added.architecture, shape)
    config = config_from_published(table, tmp_path / "config.json")
    again = json.loads(json.dumps(config_to_published(config)))
    assert config_from_published(again, tmp_path / "config.json") == config
    check_pieces(config)


@pytest.mark.parametrize("shape", range(3))
def test_transformers_agrees_with_the_pages_family(added, shape, tmp_path):
    pytest.importorskip("transformers")
    from tests.model import test_parity_families as parity

    theirs = parity.their_model(published.config_json(added.architecture, shape), tmp_path)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = parity.load_model(tmp_path / "theirs")
    tokens = parity.some_tokens(ours, rows=2)
    difference = (parity.our_logits(ours, tokens) - theirs(tokens).logits).abs().max()
    assert difference <= parity.TOLERANCE


@pytest.mark.parametrize(
    "name", [name for name in families.FAMILIES if name in ("llama", "mistral", "qwen2")]
)
def test_a_dense_family_is_a_short_file(name):
    path = Path(families.__file__).parent / f"{name}.py"
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MOST_LINES
