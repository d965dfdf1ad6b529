"""Problems addressed by round: the same again, never held out, never twice in one round."""

import json

import pytest

from clearseek.config.errors import InputError
from clearseek.config.recipe import Problems
from clearseek.tasks.registry import FAMILIES
from clearseek.trace.problem_source import ProblemSource


@pytest.fixture
def file_of(tmp_path):
    def write(count, name="problems.jsonl"):
        path = tmp_path / name
        lines = [
            json.dumps({"prompt": f"{i} + 1?", "answer": i + 1, "verifier": "number"}) for i in range(count)
        ]
        path.write_text("\n".join(lines))
        return str(path)

    return write


def test_training_never_sees_a_held_out_problem():
    """T16: split by content, for every family, language and level; seeds and streams do not matter."""
    problems = Problems(levels=[1, 2, 3])
    held_out = {problem.id for problem in ProblemSource(problems, 1, "evaluation").held_out(300)}
    assert len(held_out) == 300
    drawn = [
        problem
        for seed in (1, 2)
        for turn in range(3)
        for problem in ProblemSource(problems, seed, "rl").draw(turn, 300)
    ]
    assert {problem.family for problem in drawn} == set(FAMILIES)
    assert not held_out & {problem.id for problem in drawn}
    assert not any(problem.held_out for problem in drawn)


def test_a_file_is_parted_by_content(file_of):
    """T16: whatever the seed, and whatever other problems the file holds."""
    small, large = file_of(80, "small.jsonl"), file_of(160, "large.jsonl")
    parts = [ProblemSource(Problems(path=path), seed, "x").pool for path in (small, large) for seed in (1, 2)]
    ids = [{split: {p.id for p in pool} for split, pool in part.items()} for part in parts]
    assert ids[0] == ids[1]
    assert ids[0]["held_out"] <= ids[2]["held_out"]
    for part in ids:
        assert not part["train"] & part["held_out"]
        assert part["held_out"]
    assert len(ids[0]["train"] | ids[0]["held_out"]) == 80


def test_a_round_is_the_same_again_and_other_rounds_differ():
    problems = Problems(tasks=["arithmetic"])
    draws = [[p.id for p in ProblemSource(problems, 1, "rl").draw(r, 20)] for r in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert [p.id for p in ProblemSource(problems, 2, "rl").draw(0, 20)] != draws[0]
    assert [p.id for p in ProblemSource(problems, 1, "other").draw(0, 20)] != draws[0]


def test_a_file_is_gone_through_once_before_it_repeats(file_of):
    source = ProblemSource(Problems(path=file_of(60)), 1, "rl")
    size = len(source.pool["train"])
    rounds = [[p.id for p in source.draw(r, size)] for r in range(3)]
    assert all(len(set(ids)) == size for ids in rounds)
    assert rounds[0] != rounds[1]


def test_no_problem_comes_twice_in_a_round(file_of):
    """Its samples are addressed by it, so that a second group would repeat the first."""
    source = ProblemSource(Problems(path=file_of(12)), 1, "rl")
    for turn in range(4):
        ids = [problem.id for problem in source.draw(turn, 32)]
        assert len(ids) == len(set(ids)) <= 12
    small = Problems(tasks=["digits"], levels=[1], languages=["en"])
    ids = [problem.id for problem in ProblemSource(small, 1, "rl").draw(0, 2000)]
    assert len(ids) == len(set(ids))


def test_solved_problems_are_passed_over_until_none_is_left(file_of):
    source = ProblemSource(Problems(path=file_of(24)), 1, "rl")
    retired: set[str] = set()
    while len(retired) < len(source.pool["train"]):
        assert not source.is_used_up(retired)
        drawn = {problem.id for problem in source.draw(0, 5, retired)}
        assert drawn
        assert not drawn & retired
        retired |= drawn
    assert source.is_used_up(retired)
    assert source.draw(0, 5, retired) == []


def test_a_file_of_its_own_may_be_held_out(file_of):
    source = ProblemSource(Problems(path=file_of(5, "a.jsonl"), held_out_path=file_of(3, "b.jsonl")), 1, "rl")
    assert len(source.draw(0, 5)) == 5
    assert len(source.held_out(10)) == 3


def test_too_few_problems_to_part_is_an_error(file_of):
    with pytest.raises(InputError, match="too few to keep one in eight"):
        ProblemSource(Problems(path=file_of(1)), 1, "rl")
