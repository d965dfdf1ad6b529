"""What an evaluation says of its answers, so that whoever samples them again can compare."""

import hashlib
from dataclasses import replace

from clearseek.engine.request import Completion
from clearseek.engine.rollout import Group, Judged
from clearseek.eval.examine import Examination
from clearseek.tasks.problem import Problem
from clearseek.tasks.verify import Verdict

PROBLEM = Problem("digits", "en", 1, "How many?", "3", "number")
OTHER = replace(PROBLEM, prompt="How many more?")


def judged(tokens, verdict):
    return Judged(Completion(tokens, [0.0] * len(tokens), "stop"), "", "", verdict, None)


def examination(*answers):
    """Two answers to each of two problems."""
    first, second = answers[:2], answers[2:]
    return Examination([Group(PROBLEM, (1,), first), Group(OTHER, (1,), second)])


ANSWERS = (
    judged([17, 4], Verdict.correct),
    judged([5], Verdict.wrong),
    judged([], Verdict.error),
    judged([9, 9, 2], Verdict.unparseable),
)


def test_the_hash_is_over_a_line_for_every_answer():
    lines = [
        f'["{PROBLEM.id}",[17,4],"correct"]',
        f'["{PROBLEM.id}",[5],"wrong"]',
        f'["{OTHER.id}",[],"error"]',
        f'["{OTHER.id}",[9,9,2],"unparseable"]',
    ]
    told = "".join(f"{line}\n" for line in lines).encode()
    assert examination(*ANSWERS).answers_sha256() == hashlib.sha256(told).hexdigest()


def test_every_token_every_verdict_and_their_order_count():
    first, *rest = ANSWERS
    others = [
        examination(judged([17, 3], Verdict.correct), *rest),
        examination(judged([17, 4], Verdict.wrong), *rest),
        examination(judged([17], Verdict.correct), *rest),
        examination(rest[0], first, *rest[1:]),
        examination(first, *rest[1:], rest[0]),
    ]
    assert len({one.answers_sha256() for one in [examination(*ANSWERS), *others]}) == 6
