"""No cheat scores and no honest answer is lost: two corpora, through the worker as in a run."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.tasks.verifiers.countdown import read_expression
from clearseek.tasks.verifiers.fold import fold
from clearseek.tasks.verify import VERIFIERS, Verdict, check_verifier, verify
from clearseek.tasks.worker import Limits, VerifierPool

CHEAP = [name for name in VERIFIERS if name != "math"]


def corpus(name: str) -> list[dict[str, str]]:
    path = Path(__file__).parent / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def items(rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(row["verifier"], row["candidate"], row["answer"]) for row in rows]


@pytest.fixture(scope="module")
def pool() -> Iterator[VerifierPool]:
    with VerifierPool(Limits(timeout_seconds=3)) as pool:
        yield pool


def test_corpora_are_large_and_cover_every_verifier() -> None:
    cheats, honest = corpus("adversarial.jsonl"), corpus("honest.jsonl")
    assert len(cheats) >= 220
    assert len(honest) >= 60
    assert {row["verifier"] for row in cheats} == {row["verifier"] for row in honest} == set(VERIFIERS)
    assert len(set(items(cheats))) == len(cheats)


def test_no_cheat_or_malformed_answer_is_correct(pool: VerifierPool) -> None:
    rows = corpus("adversarial.jsonl")
    verdicts = pool.verify_many(items(rows))
    assert [row for row, said in zip(rows, verdicts, strict=True) if said is Verdict.correct] == []
    errors = [row for row, said in zip(rows, verdicts, strict=True) if said is Verdict.error]
    assert {row["why"] for row in errors} <= {
        "a pattern that explodes must end as an error",
        "no such JSON",
    }


def test_every_honest_answer_is_correct(pool: VerifierPool) -> None:
    rows = corpus("honest.jsonl")
    verdicts = pool.verify_many(items(rows))
    assert [row for row, said in zip(rows, verdicts, strict=True) if said is not Verdict.correct] == []


@pytest.mark.parametrize("name", VERIFIERS)
def test_empty_is_unparseable_and_never_right(name: str) -> None:
    answers = {"choice": "B", "json": "{}", "countdown": "3+4", "regex": "a?", "number": "0"}
    assert verify(name, "", answers.get(name, "0")) is Verdict.unparseable


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("number", "many"),
        ("number", ""),
        ("exact", " "),
        ("choice", "yes"),
        ("regex", "("),
        ("json", "{"),
        ("math", ""),
        ("math", "\\frac{"),
        ("countdown", "3+"),
        ("countdown", "5/(3-3)"),
    ],
)
def test_a_reference_that_cannot_be_read_is_an_error_not_a_wrong_answer(name: str, answer: str) -> None:
    assert verify(name, "7", answer) is Verdict.error


def test_unknown_verifier_is_named_with_the_known() -> None:
    with pytest.raises(
        InputError, match=r"unknown verifier 'numbr'; did you mean 'number'\? known: number, exact"
    ):
        verify("numbr", "1", "1")
    with pytest.raises(InputError, match=r"cannot read missing\.py"):
        check_verifier("missing.py:score")


@given(st.text(max_size=60), st.sampled_from(CHEAP))
def test_any_text_gets_a_verdict(text: str, name: str) -> None:
    answers = {"choice": "B", "json": '{"a": 1}', "countdown": "(7-3)*5", "regex": "[a-z]{3}"}
    assert verify(name, text, answers.get(name, "42")) in set(Verdict) - {Verdict.error}


@given(st.integers(-(10**12), 10**12))
def test_every_integer_is_itself_however_written(number: int) -> None:
    for written in (f"{number}", f"{number:,}", f" {number}.0 ", f"\\boxed{{{number}}}", f"x={number}"):
        assert verify("number", written, str(number)) is Verdict.correct
    assert verify("number", str(number + 1), str(number)) is Verdict.wrong


@given(st.text(alphabet="0123456789+-*/() =x.", max_size=40))
def test_countdown_text_agrees_with_python_on_what_it_reads(text: str) -> None:
    """Whatever our parser takes, Python's own parser reads as the same numbers."""
    import ast

    read = read_expression(text)
    if read is not None:
        tree = ast.parse(text.strip(), mode="eval")
        constants = sorted(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
        assert constants == sorted(read.numbers.elements())


def test_folding_joins_widths_and_leaves_powers_apart() -> None:
    assert fold("　４２　") == "42"
    assert fold("4²") == "4²"
    assert fold("④②") == "④②"
    assert fold("\u1112\u116a") == "화"
