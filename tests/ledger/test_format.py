"""A ledger of a newer form: whoever reads it says so in one line, and nothing of it is written to or dropped."""

import json
import shutil
from pathlib import Path

import pytest

from clearseek.cli.main import main
from clearseek.config.errors import RunError
from clearseek.ledger.log import Ledger, check_format, read, verify
from clearseek.ledger.record import load_run
from clearseek.ledger.verifier import FORMAT
from clearseek.model.resolve import resolve_model
from clearseek.recipe.run import run_recipe
from tests.ledger.sealed_run import sealed_run
from tests.recipe.tiny_run import write_recipe

WORDS = f"is of format 2, this clearseek reads up to {FORMAT}: a newer one wrote it"


def with_format(run: Path, form: object) -> Path:
    """The run with `form` in line 0; a torn line follows, as a kill leaves it."""
    path = run / "ledger.jsonl"
    first, rest = path.read_bytes().split(b"\n", 1)
    told = json.dumps({**json.loads(first), "format": form}, separators=(",", ":"))
    path.write_bytes(told.encode() + b"\n" + rest + b'{"line":')
    return path


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    return with_format(sealed_run(tmp_path / "run"), 2).parent


@pytest.mark.parametrize("reader", [read, verify, Ledger, check_format, lambda path: load_run(path.parent),
                                    lambda path: resolve_model(path.parent)])  # fmt: skip
def test_every_reader_refuses_it_and_leaves_it_as_it_is(newer, reader):
    path = newer / "ledger.jsonl"
    before = path.read_bytes()
    with pytest.raises(RunError, match=WORDS):
        reader(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ["ledger", "verify"],
        ["ledger", "replay"],
        ["ledger", "dispute", "OTHER"],
        ["trace", "any text"],
        ["data"],
        ["cost"],
        ["report"],
        ["papers"],
        ["openness"],
        ["doctor"],
    ],
    ids=" ".join,
)
def test_every_command_says_one_line(newer, tmp_path, capsys, words):
    name, *rest = words
    if "OTHER" in rest:
        rest[rest.index("OTHER")] = str(sealed_run(tmp_path / "other"))
    where = [name, rest[0], str(newer), *rest[1:]] if name == "ledger" else [name, str(newer), *rest]
    if words[:2] == ["ledger", "replay"]:
        where += ["--sample", "1"]
    assert main(where) == 1
    told = capsys.readouterr().err
    assert "of format 2" in told
    assert "newer" in told
    assert told.count("\n") == 1


def test_a_run_is_not_continued_in_it(tmp_path, newer):
    shutil.copy(write_recipe(tmp_path), newer / "recipe.toml")
    before = (newer / "ledger.jsonl").read_bytes()
    with pytest.raises(RunError, match=WORDS):
        run_recipe(str(newer / "recipe.toml"), out=newer, device="cpu")
    assert (newer / "ledger.jsonl").read_bytes() == before


@pytest.mark.parametrize("form", [0, -1, "1", True, None, [], 1.5])
def test_what_is_no_known_format_is_refused_alike(tmp_path, form):
    with pytest.raises(RunError, match="this clearseek reads up to"):
        read(with_format(sealed_run(tmp_path / "run"), form))


def test_one_that_says_nothing_is_of_the_first(tmp_path):
    run = sealed_run(tmp_path / "run")
    assert "format" not in read(run / "ledger.jsonl")[0]
    assert read(with_format(run, 1))[0]["format"] == 1
