"""Every published chat template that there is a copy of, in every conversation, beside transformers."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from clearseek.text.tokenizer import Tokenizer
from tests.text.published import CONVERSATIONS, SWITCHES, TEMPLATES, TOOLS, needs_published

transformers = pytest.importorskip("transformers")

from tests.text.test_published_templates import compare, opened  # noqa: E402

# They ask for variables, or for tools, of a form of their own: both sides refuse whatever is given here.
REFUSING = ("fireworks-ai-llama-3-firefunction-v2", "CohereForAI-c4ai-command-r-plus-tool_use")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("tokenizer")
    Tokenizer.train(["a template writes text"] * 9, 300).save(directory)
    return transformers.AutoTokenizer.from_pretrained(directory)


def test_there_are_templates_to_compare() -> None:
    needs_published()
    assert len(TEMPLATES) >= 70


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_every_template_renders_alike(theirs: Any, path: Path) -> None:
    cases = itertools.product(CONVERSATIONS, (None, TOOLS), SWITCHES, (True, False))
    ours = opened(path)
    rendered = [compare(theirs, ours, *case) for case in cases]
    assert any(rendered) or path.stem in REFUSING
