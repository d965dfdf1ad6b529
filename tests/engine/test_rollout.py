"""Judged groups: whole, in order, with verdicts that mean what they say."""

import numpy as np
import pytest

from clearseek.engine.request import Completion, Sampling
from clearseek.engine.rollout import describe, encode_problem, judge, rewards, roll_out
from clearseek.tasks.verify import Verdict
from tests.engine.scripted import PlainVerifiers, ScriptedEngine, problem, small_tokenizer

RIGHT, WRONG = "I add</think>17", "I guess</think>18"


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def groups_of(tokenizer, answers, problems=None, verifiers=None, samples=None):
    """`answers[i][j]` is the j-th completion of problem i."""
    problems = problems or [problem(f"12 + 5, question {i}?") for i in range(len(answers))]
    prompts = [encode_problem(tokenizer, one) for one in problems]
    engine = ScriptedEngine(tokenizer, lambda request, j: answers[prompts.index(request.prompt)][j])
    count = samples or len(answers[0])
    return roll_out(
        engine, tokenizer, problems, count, Sampling(), lambda one: 7, verifiers or PlainVerifiers()
    )


def test_a_group_holds_every_sample_of_its_problem_in_order(tokenizer):
    answers = [[RIGHT, WRONG, WRONG], [WRONG, WRONG, WRONG], [RIGHT, RIGHT, RIGHT]]
    groups = groups_of(tokenizer, answers)
    assert [[item.verdict.value for item in group.judged] for group in groups] == [
        ["correct", "wrong", "wrong"], ["wrong"] * 3, ["correct"] * 3
    ]  # fmt: skip
    assert [group.pass_rate for group in groups] == [1 / 3, 0, 1]
    assert [group.problem.prompt for group in groups] == [f"12 + 5, question {i}?" for i in range(3)]
    assert tokenizer.decode(groups[0].prompt).endswith("<｜Assistant｜><think>")
    assert (groups[0].judged[0].thought, groups[0].judged[0].answer) == ("I add", "17")


def test_the_token_that_ended_a_completion_is_no_part_of_its_answer(tokenizer):
    """Whichever of the model's ends it is."""
    end = tokenizer.encode_plain("=")[0]
    tokens = [*tokenizer.encode(RIGHT), end]
    verifiers = PlainVerifiers()
    items = [Completion(tokens, [0.0] * len(tokens), reason) for reason in ("stop", "length")]
    judged = judge(tokenizer, [(problem(), item) for item in items], verifiers)
    assert [item.answer for item in judged] == ["17", "17="]
    assert [item.verdict.value for item in judged] == ["correct", "unparseable"]


def test_a_thought_that_never_closes_is_unparseable(tokenizer):
    verifiers = PlainVerifiers()
    (group,) = groups_of(tokenizer, [["the answer is 17", RIGHT]], verifiers=verifiers)
    assert [item.verdict.value for item in group.judged] == ["unparseable", "correct"]
    assert group.judged[0].answer is None
    assert len(verifiers.asked) == 1


def test_what_the_budget_cut_is_never_right(tokenizer):
    """T19: 17 may be the beginning of 170."""
    (group,) = groups_of(tokenizer, [[RIGHT + "…", RIGHT]])
    assert [item.verdict.value for item in group.judged] == ["unparseable", "correct"]
    assert [item.is_truncated for item in group.judged] == [True, False]
    assert describe([group])["truncated"] == 1


def test_an_error_is_left_out_and_counted(tokenizer):
    """T13, law 5: a verifier that broke is no reward of 0."""
    verifiers = PlainVerifiers(errors=["18"])
    groups = groups_of(tokenizer, [[RIGHT, WRONG]], verifiers=verifiers)
    values = rewards(groups, 0.0)
    assert values[0, 0] == 1
    assert np.isnan(values[0, 1])
    assert groups[0].pass_rate == 1
    assert describe(groups)["error"] == 1
    assert describe(groups)["wrong"] == 0


@pytest.mark.parametrize("reason", ["error", "deadline", "cancelled"])
def test_what_the_engine_could_not_finish_is_an_error(tokenizer, reason):
    completion = Completion(tokenizer.encode("17"), [-1.0], reason)
    (judged,) = judge(tokenizer, [(problem(), completion)], PlainVerifiers())
    assert judged.verdict == Verdict.error


def test_language_is_rewarded_by_its_weight(tokenizer):
    korean = problem("12 + 5는?", language="ko")
    answers = ["먼저 더하면 </think>17", "so it is</think>17", "so 먼저</think>18", "</think>17"]
    groups = groups_of(tokenizer, [answers], [korean])
    assert rewards(groups, 0.5)[0].tolist() == [1.5, 1.0, 0.25, 1.5]
    assert rewards(groups, 0.0)[0].tolist() == [1, 1, 0, 1]
    assert describe(groups)["language_consistency"] == pytest.approx(0.5)  # of the three with words


def test_numbers_of_a_batch(tokenizer):
    groups = groups_of(tokenizer, [[RIGHT, RIGHT], [WRONG, WRONG], [RIGHT, "no end…"]])
    numbers = describe(groups)
    lengths = [len(item.completion.tokens) for group in groups for item in group.judged]
    assert (numbers["correct"], numbers["wrong"], numbers["unparseable"], numbers["error"]) == (3, 2, 1, 0)
    assert (numbers["groups"], numbers["groups_all_correct"], numbers["groups_all_wrong"]) == (3, 1, 1)
    assert numbers["completion_tokens"] == pytest.approx(np.mean(lengths))
    assert numbers["entropy"] == pytest.approx(0.5)


def test_every_problem_has_a_key_of_its_own(tokenizer):
    problems = [problem("1 + 1?"), problem("2 + 2?")]
    engine = ScriptedEngine(tokenizer, lambda request, j: RIGHT)
    roll_out(engine, tokenizer, problems, 2, Sampling(), lambda one: int(one.id, 16), PlainVerifiers())
    assert [request.key for request in engine.requests] == [int(one.id, 16) for one in problems]
    assert [request.num_samples for request in engine.requests] == [2, 2]


def test_no_problems_are_no_groups(tokenizer):
    engine = ScriptedEngine(tokenizer, lambda request, j: RIGHT)
    assert roll_out(engine, tokenizer, [], 4, Sampling(), lambda one: 0, PlainVerifiers()) == []
    assert rewards([], 0.0).size == 0
    assert describe([])["groups"] == 0
