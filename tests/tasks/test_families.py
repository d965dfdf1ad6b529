"""Every family: solved independently, its worked steps recomputed, its answers accepted by its verifier."""

import re
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest

from clearseek.tasks.families import names, steps
from clearseek.tasks.language import language_consistency
from clearseek.tasks.problem import LANGUAGES, Problem
from clearseek.tasks.registry import FAMILIES, at
from clearseek.tasks.verify import Verdict, verify
from tests.tasks.solvers import SOLVERS, countdown, reachable, value

SEEDS = range(60)
CELLS = [(name, level) for name, family in FAMILIES.items() for level in range(1, family.LEVELS + 1)]


def problems(name: str, level: int) -> list[Problem]:
    return [at(FAMILIES[name], level, language, seed) for language in LANGUAGES for seed in SEEDS]


def test_ten_families_in_three_levels() -> None:
    assert len(FAMILIES) >= 10
    assert all(family.LEVELS == 3 for family in FAMILIES.values())


@pytest.mark.parametrize(("name", "level"), [cell for cell in CELLS if cell[0] != "countdown"])
def test_answer_is_what_an_independent_solver_finds(name: str, level: int) -> None:
    for problem in problems(name, level):
        assert SOLVERS[name](problem) == problem.answer, problem


@pytest.mark.parametrize("level", [1, 2, 3])
def test_countdown_is_reached_by_its_answer_and_by_brute_force(level: int) -> None:
    for problem in problems("countdown", level):
        given, target = countdown(problem)
        assert Counter(given) == Counter(map(int, re.findall(r"\d+", problem.answer)))
        inner = re.search(r"\((\d+[-+*]\d+)\)", problem.answer)
        flat = problem.answer.replace(inner[0], str(value(inner[1]))) if inner else problem.answer
        assert value(flat) == target
        assert target in reachable([Fraction(number) for number in given])


@pytest.mark.parametrize(("name", "level"), CELLS)
def test_every_equation_and_comparison_of_a_solution_holds(name: str, level: int) -> None:
    for problem in problems(name, level):
        for equation in re.findall(r"\d[\d+*/-]*(?:=\d[\d+*/-]*)+", problem.solution):
            assert len({value(side) for side in equation.split("=")}) == 1, problem
        for a, sign, b in re.findall(r"(\d+)([<>])(\d+)", problem.solution):
            assert (int(a) < int(b)) == (sign == "<"), problem


@pytest.mark.parametrize("level", [1, 2, 3])
def test_countdown_goes_on_after_each_miss_and_stops_at_the_hit(level: int) -> None:
    for problem in problems("countdown", level):
        _, target = countdown(problem)
        no, yes = steps.NO[problem.language].strip(), steps.YES[problem.language].strip()
        misses = re.findall(rf"=(\d+) ?{no}", problem.solution)
        assert target not in map(int, misses)
        assert re.findall(rf"=(\d+) ?{yes}", problem.solution) == [str(target)]
        assert problem.solution.endswith(yes)


def test_countdown_searches_misses_and_goes_back() -> None:
    goes_back = [problem for problem in problems("countdown", 3) if "no" in problem.solution.split()]
    assert len(goes_back) > 20


def test_logic_supposes_meets_a_contradiction_and_goes_back() -> None:
    english = [problem for problem in problems("logic", 2) if problem.language == "en"]
    told = Counter(tuple(re.findall(r"\b(?:suppose|no|yes)\b", problem.solution)) for problem in english)
    assert set(told) == {("suppose", "yes"), ("suppose", "no", "suppose", "yes")}
    assert min(told.values()) > 15


@pytest.mark.parametrize(("name", "level"), CELLS)
def test_own_verifier_accepts_the_answer_and_no_other_problem_s(name: str, level: int) -> None:
    one_language = problems(name, level)[: len(SEEDS)]
    for problem, other in pairwise(one_language):
        assert verify(problem.verifier, problem.answer, problem.answer) is Verdict.correct
        assert verify(problem.verifier, f" {problem.answer} ", problem.answer) is Verdict.correct
        if problem.verifier != "countdown" and problem.answer != other.answer:
            assert verify(problem.verifier, other.answer, problem.answer) is not Verdict.correct


@pytest.mark.parametrize("name", FAMILIES)
def test_levels_get_harder(name: str) -> None:
    def work(level: int) -> float:
        solved = [at(FAMILIES[name], level, "en", seed) for seed in range(800)]
        return sum(len(problem.solution) for problem in solved) / len(solved)

    assert work(1) < work(2) < work(3)


@pytest.mark.parametrize(("name", "level"), CELLS)
def test_prompt_and_solution_are_in_their_language(name: str, level: int) -> None:
    for problem in problems(name, level):
        assert language_consistency(problem.prompt, problem.language) == 1.0, problem
        assert language_consistency(problem.solution, problem.language) == 1.0, problem


@pytest.mark.parametrize(("name", "level"), CELLS)
def test_the_same_seed_is_the_same_problem_in_every_language(name: str, level: int) -> None:
    for seed in SEEDS:
        three = [at(FAMILIES[name], level, language, seed) for language in LANGUAGES]
        assert len({tuple(re.findall(r"\d+", problem.solution)) for problem in three}) == 1
        assert len({tuple(sorted(re.findall(r"\d+", problem.prompt))) for problem in three}) == 1
        assert len({problem.prompt for problem in three}) == 3


@pytest.mark.parametrize(("name", "level"), CELLS)
def test_many_different_problems(name: str, level: int) -> None:
    different = {at(FAMILIES[name], level, "en", seed).id for seed in range(3000)}
    assert len(different) >= 900


@pytest.mark.parametrize(("name", "level"), CELLS)
def test_a_solution_is_short(name: str, level: int) -> None:
    """Digits and signs are a token each, and so is a word or two Chinese characters."""
    for problem in problems(name, level):
        pieces = re.findall(r"\d|[^\W\d_]+|[^\w\s]| (?=\d)", problem.solution)
        assert len(pieces) <= (60 if level < 3 else 110), problem


def test_people_correspond_in_every_language_and_fit_korean_particles() -> None:
    assert len({len(people) for people in names.PEOPLE.values()}) == 1
    assert all((ord(name[-1]) - 0xAC00) % 28 == 0 for name in names.PEOPLE["ko"])


@pytest.mark.parametrize(
    ("a", "b", "text"),
    [
        (23, 4, "23*4=80+12=92"),
        (4, 23, "23*4=80+12=92"),
        (20, 4, "20*4=80"),
        (7, 8, "7*8=56"),
        (5, 60, "5*60=300"),
        (76, 100, "76*100=7600"),
    ],
)
def test_multiplication_is_shown_by_tens_and_units(a: int, b: int, text: str) -> None:
    assert steps.multiply(a, b) == text
