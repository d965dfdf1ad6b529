"""Problems by address: deterministic, split by content, never repeated where it matters."""

import random
import subprocess
import sys
from collections import Counter

import pytest

from clearseek.config.errors import InputError
from clearseek.tasks.corpus import STYLES, documents, render
from clearseek.tasks.problem import LANGUAGES, Problem
from clearseek.tasks.registry import FAMILIES, generate, translate

LEVELS = (1, 2, 3)


def test_the_same_address_is_the_same_problem() -> None:
    first = generate(None, LANGUAGES, LEVELS, 300, 7, "train")
    assert generate(None, LANGUAGES, LEVELS, 300, 7, "train") == first
    assert generate(None, LANGUAGES, LEVELS, 120, 7, "train") == first[:120]
    assert generate(None, LANGUAGES, LEVELS, 300, 8, "train") != first
    assert generate(None, LANGUAGES, LEVELS, 300, 7, "train", "rl") != first


def test_another_process_with_another_hash_seed_draws_the_same() -> None:
    program = (
        "from clearseek.tasks.registry import generate;"
        "print([p.id for p in generate(None, ('ko','zh','en'), (1,2,3), 90, 3, 'held_out')])"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert runs[0] == runs[1] == f"{[p.id for p in generate(None, LANGUAGES, LEVELS, 90, 3, 'held_out')]}\n"


def test_a_held_out_list_is_unique_and_begins_with_the_shorter_one() -> None:
    held_out = generate(None, LANGUAGES, LEVELS, 3000, 1, "held_out")
    assert len({problem.id for problem in held_out}) == 3000
    assert generate(None, LANGUAGES, LEVELS, 500, 1, "held_out") == held_out[:500]


def test_training_never_sees_a_held_out_problem() -> None:
    held_out = {problem.id for problem in generate(None, LANGUAGES, LEVELS, 2000, 1, "held_out")}
    for stream in ("pretrain", "rl"):
        train = generate(None, LANGUAGES, LEVELS, 5000, 1, "train", stream)
        assert not held_out & {problem.id for problem in train}
        assert not any(problem.held_out for problem in train)


def test_about_one_in_eight_is_held_out() -> None:
    problems = [FAMILIES["arithmetic"].generate(random.Random(seed), 3, "en") for seed in range(4000)]
    assert 400 < sum(problem.held_out for problem in problems) < 600


def test_families_languages_and_levels_are_even_even_in_a_short_list() -> None:
    problems = generate(None, LANGUAGES, LEVELS, 90, 0, "train")
    assert set(Counter((p.family, p.language, p.level) for p in problems).values()) == {1}
    assert len({p.family for p in problems[:10]}) == 10


def test_the_id_is_of_the_content() -> None:
    problem = generate(["units"], ["en"], [2], 1, 0, "train")[0]
    same = Problem("other", "ko", 1, problem.prompt, problem.answer, problem.verifier)
    assert same.id == problem.id
    assert len(problem.id) == 16
    moved = [Problem("user", "en", 1, "p", "a", f"{folder}/mine.py:score").id for folder in ("/a", "/b/c")]
    assert moved[0] == moved[1]
    assert Problem("user", "en", 1, "p", "b", "/a/mine.py:score").id != moved[0]


def test_translation_gives_the_same_problem_in_each_language() -> None:
    for problem in generate(None, LANGUAGES, LEVELS, 180, 5, "train"):
        assert translate(problem, problem.language) == problem
        for language in LANGUAGES:
            there = translate(problem, language)
            assert (there.language, there.family, there.level) == (language, problem.family, problem.level)
            assert translate(there, problem.language) == problem
    with pytest.raises(InputError, match="was not generated"):
        translate(Problem("user", "en", 1, "p", "a", "exact"), "ko")


@pytest.mark.parametrize(
    ("families", "languages", "levels", "told"),
    [
        (["countdwn"], ["en"], [1], "unknown family 'countdwn'; did you mean 'countdown'"),
        (["countdown"], ["fr"], [1], "unknown language 'fr'; known: ko, zh, en"),
        (["countdown"], ["en"], [4], r"has level \[4\]"),
        (["countdown"], ["en"], [0, 1], r"has level \[0\]"),
        ([], ["en"], [1], "no family asked for"),
        (["countdown"], [], [1], "no family asked for"),
    ],
)
def test_what_is_unknown_is_named(
    families: list[str], languages: list[str], levels: list[int], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        generate(families, languages, levels, 10, 0, "train")


def test_a_family_that_runs_out_of_held_out_problems_says_so() -> None:
    with pytest.raises(InputError, match="logic level 1 in en has too few held_out problems"):
        generate(["logic"], ["en"], [1], 400, 0, "held_out")


def test_styles_of_a_document() -> None:
    problem = generate(["calendar"], ["ko"], [2], 1, 0, "train")[0]
    rng = random.Random(0)
    assert render(problem, "worked", rng) == (problem.prompt, problem.solution, problem.answer)
    assert render(problem, "bare", rng) == (problem.prompt, "", problem.answer)
    thoughts = {render(problem, "foreign", rng).thought for _ in range(20)}
    assert thoughts == {translate(problem, language).solution for language in ("zh", "en")}
    with pytest.raises(InputError, match="unknown style 'loud'; known: worked, bare, foreign"):
        render(problem, "loud", rng)


def test_documents_mix_styles_by_weight_and_address() -> None:
    weights = {"worked": 0.6, "bare": 0.3, "foreign": 0.1}
    assert set(weights) == set(STYLES)
    mixed = list(documents(None, LANGUAGES, LEVELS, 1000, 0, weights))
    assert mixed[:200] == list(documents(None, LANGUAGES, LEVELS, 200, 0, weights))
    assert 220 < sum(not example.thought for example in mixed) < 380
    with pytest.raises(InputError, match="unknown style"):
        list(documents(None, LANGUAGES, LEVELS, 5, 0, {"loud": 1.0}))
