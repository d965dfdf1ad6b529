"""What a verifier can say."""

from enum import StrEnum


class Verdict(StrEnum):
    """`unparseable`: not an answer in the expected form; `error`: the verifier or the reference failed."""

    correct = "correct"
    wrong = "wrong"
    unparseable = "unparseable"
    error = "error"


def verdict_of(right: bool) -> Verdict:
    """Correct or wrong."""
    return Verdict.correct if right else Verdict.wrong
