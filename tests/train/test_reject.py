"""What rejection sampling keeps."""

import pytest

from clearseek.config.recipe import RejectStage
from clearseek.engine.request import Completion
from clearseek.engine.rollout import Group, Judged
from clearseek.tasks.verify import Verdict
from clearseek.train.reject import keep
from tests.engine.scripted import problem


def judged(thought, verdict="correct", consistency=1.0, reason="stop", answer="17"):
    return Judged(Completion([1], [0.0], reason), thought, answer, Verdict(verdict), consistency)


def kept(items, **settings):
    stage = RejectStage(**{"kind": "reject", "start": "x", "count": 1, "keep_per_problem": 9} | settings)
    return [example["thought"] for example in keep(Group(problem(), (1,), tuple(items)), stage)]


def test_only_right_finished_answers_are_kept():
    items = [
        judged("a"), judged("b", "wrong"), judged("c", "unparseable"), judged("d", "error"),
        judged("e", reason="length"), judged("f"),
    ]  # fmt: skip
    assert kept(items) == ["a", "f"]


def test_the_first_of_equal_thoughts_is_kept_and_the_number_is_bounded():
    items = [judged("a"), judged("b"), judged("a"), judged("c"), judged("d")]
    assert kept(items) == ["a", "b", "c", "d"]
    assert kept(items, keep_per_problem=2) == ["a", "b"]


@pytest.mark.parametrize(("least", "expected"), [(0.0, "abc"), (0.5, "ac"), (1.0, "c")])
def test_mixed_languages_are_left_out(least, expected):
    """A thought without words mixes nothing."""
    items = [judged("a", consistency=0.9), judged("b", consistency=0.2), judged("c", consistency=None)]
    assert kept(items, min_language_consistency=least) == list(expected)


def test_an_example_is_a_prompt_a_thought_and_an_answer():
    stage = RejectStage(kind="reject", start="x", count=1)
    (example,) = keep(Group(problem(), (1,), (judged("so", answer="17"),)), stage)
    assert example == {"prompt": "12 + 5?", "thought": "so", "answer": "17"}
