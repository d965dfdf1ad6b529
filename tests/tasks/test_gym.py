"""The reasoning-gym adapter: what it says without the library, and with it that its traps are closed."""

import sys

import pytest

from clearseek.config.errors import InputError
from clearseek.tasks import gym
from clearseek.tasks.gym import load_gym, score
from clearseek.tasks.verify import Verdict
from clearseek.tasks.worker import VerifierPool


@pytest.fixture
def library() -> None:
    pytest.importorskip("reasoning_gym")


def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    gym._dataset.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'clearseek\[gym\]'"):
        load_gym("leg_counting", 1, 0, "train")


def test_an_address_that_is_not_ours_is_refused() -> None:
    with pytest.raises(InputError, match="not one that load_gym made"):
        score("gym:leg_counting", "4", "4")


def test_calls_that_evaluate_text_are_seen_in_a_scorer() -> None:
    def harmless(answer: str) -> float:
        return float(answer == "4")

    def harmful(answer: str) -> float:
        from sympy import parse_expr

        return float(parse_expr(answer) == 4)

    assert not gym._evaluates(harmless)
    assert gym._evaluates(harmful)


@pytest.mark.usefixtures("library")
def test_splits_and_seeds_share_nothing() -> None:
    lists = [
        load_gym("leg_counting", 40, seed, split) for seed in (42, 43) for split in ("train", "held_out")
    ]  # type: ignore[arg-type]
    ids = [problem.id for problems in lists for problem in problems]
    assert len(set(ids)) == len(ids) == 160
    assert all(not problem.held_out for problem in lists[0])
    assert all(problem.held_out for problem in lists[1])


@pytest.mark.usefixtures("library")
def test_only_a_full_score_is_correct_and_scoring_runs_in_the_worker() -> None:
    problems = load_gym("word_sorting", 5, 0, "train")
    with VerifierPool() as pool:
        right = pool.verify_many([(p.verifier, p.answer, p.answer) for p in problems])
        wrong = pool.verify_many([(p.verifier, p.answer + "x", p.answer) for p in problems])
    assert right == [Verdict.correct] * 5
    assert Verdict.correct not in wrong


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("name", "config", "told"),
    [
        ("countdown", {}, "countdown is refused, because its scorer evaluates"),
        ("composite", {}, "composite is refused"),
        ("game_of_life_halting", {}, "takes any answer for right"),
        ("leg_countin", {}, "no data set 'leg_countin'; did you mean 'leg_counting'"),
        ("leg_counting", {"legs": 9}, "does not take these options"),
    ],
)
def test_what_is_refused_is_named(name: str, config: dict[str, int], told: str) -> None:
    with pytest.raises(InputError, match=told):
        load_gym(name, 2, 0, "train", config)
