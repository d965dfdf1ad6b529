"""Law 3: a run killed with SIGKILL, and started again, leaves the bytes of one never killed.

Three moments here, every kind of moment in `tests/slow`.
"""

import json

import pytest

from clearseek.ledger.lines import encode_line
from clearseek.train.optimizer import Optimizer
from tests.recipe.moments import MOMENTS
from tests.recipe.tiny_run import contents, kill_at, run_in_child

QUICK = ("while a step is recorded", "before a resume point is renamed", "in the middle of a rollout")


@pytest.fixture(scope="module")
def expected(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("straight") / "run"
    assert run_in_child(recipe, out) is None
    return contents(out)


@pytest.mark.parametrize("moment", QUICK)
def test_a_killed_run_resumes_to_the_same_bytes(recipe, expected, tmp_path, moment):
    """T10."""
    out = tmp_path / "run"
    assert run_in_child(recipe, out, MOMENTS[moment]) == "killed"
    assert run_in_child(recipe, out) is None
    found = contents(out)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_finished_run_is_left_alone(recipe, expected, tmp_path):
    out = tmp_path / "run"
    assert run_in_child(recipe, out, kill_at(Optimizer, "step", 3)) == "killed"
    assert run_in_child(recipe, out) is None
    assert run_in_child(recipe, out, kill_at(Optimizer, "step", 1)) is None
    assert contents(out) == expected


def test_a_resumed_run_proves_that_it_computes_the_same(recipe, tmp_path):
    """A ledger that says something else than what is computed again ends the run, naming the line."""
    out = tmp_path / "run"
    assert run_in_child(recipe, out, kill_at(Optimizer, "step", 6)) == "killed"
    changed = _rewrite(out / "ledger.jsonl", "loss", 1.5)
    error = run_in_child(recipe, out)
    assert f"line {changed}, recomputed after a resume, differs in `loss`: written 1.5" in error


def _rewrite(path, field, value):
    """Change the last record that has a field, leaving the chain of hashes whole; returns its line number."""
    records = [json.loads(line) for line in path.read_text().splitlines()]
    number = max(i for i, record in enumerate(records) if field in record)
    lines = [encode_line(record) for record in records[:number]]
    lines.append(encode_line(records[number] | {field: value}))
    path.write_bytes(b"".join(lines))
    return number
