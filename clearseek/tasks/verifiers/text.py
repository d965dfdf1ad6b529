"""Answers compared as text: exact words, the letter of a choice, a pattern."""

import re

from clearseek.tasks.verifiers.fold import fold, unwrap
from clearseek.tasks.verifiers.verdict import Verdict, verdict_of

_LABEL = re.compile(r"\(([A-Z]|\d{1,2})\)|\[([A-Z]|\d{1,2})\]|([A-Z]|\d{1,2})[.):]?", re.ASCII)
_LONGEST_MATCHED = 10_000


def exact(candidate: str, answer: str) -> Verdict:
    """The same text but for case, width, spaces beside punctuation, and one closing stop."""
    reference = _plain(answer)
    if not reference:
        return Verdict.error
    read = _plain(candidate)
    if not read:
        return Verdict.unparseable
    return verdict_of(read == reference or read.removesuffix(".").removesuffix("。") == reference)


def _plain(text: str) -> str:
    """Case folded, each run of spaces one space, and none beside punctuation: `4 2` stays apart from `42`."""
    text = re.sub(r"\s+", " ", fold(text).casefold())
    return re.sub(r" (?=[^\w\s])|(?<=[^\w\s]) ", "", text)


def choice(candidate: str, answer: str) -> Verdict:
    """The label of one option: `B`, `b`, `(B)`, `[B]`, `B.`, `B)`; two labels or words beside it are not."""
    reference = _label(answer)
    if reference is None:
        return Verdict.error
    read = _label(candidate)
    return Verdict.unparseable if read is None else verdict_of(read == reference)


def _label(text: str) -> str | None:
    found = _LABEL.fullmatch(unwrap(fold(text)).upper())
    return next(label for label in found.groups() if label) if found else None


def regex(candidate: str, answer: str) -> Verdict:
    """The whole candidate matches the pattern `answer`; one that explodes is the worker's to stop."""
    try:
        pattern = re.compile(answer)
    except re.error:
        return Verdict.error
    candidate = candidate.strip()
    if not candidate or len(candidate) > _LONGEST_MATCHED:
        return Verdict.unparseable
    return verdict_of(pattern.fullmatch(candidate) is not None)
