"""The same probe problems answered again and again, put in order for reading side by side."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from clearseek.ledger.record import Record

_LONGEST = 4000
_MOST_PROBLEMS = 24
_MOST_PER_STAGE = 6
_LANGUAGE_TAGS = {"zh": "zh-Hans"}
_MARKS = re.compile(r"<｜[^｜<>]{1,40}｜>")
_END = "<｜end▁of▁sentence｜>"


@dataclass(frozen=True)
class Answer:
    """One completion, cut into thought and answer; `final` marks the last one of its stage."""

    stage: str
    step: int | None
    thought: str
    answer: str | None
    verdict: str
    final: bool
    cut: bool


@dataclass
class Problem:
    """A probe problem with its answers in the order they were given."""

    id: str
    prompt: str
    expected: str
    family: str
    language: str
    lang: str
    answers: list[Answer] = field(default_factory=list)

    @property
    def final_answers(self) -> list[Answer]:
        """One answer a stage."""
        return [answer for answer in self.answers if answer.final]


def gather(samples: Sequence[Record]) -> list[Problem]:
    """Problems in the order they first appear, at most 24, each with at most six answers a stage."""
    thinks = any("</think>" in str(sample.get("completion")) for sample in samples)
    grouped: dict[str, list[Record]] = {}
    for sample in samples:
        key = str(sample.get("problem_id") or sample.get("prompt") or "")
        if key and sample.get("completion") is not None:
            grouped.setdefault(key, []).append(sample)
    chosen = list(grouped.items())[:_MOST_PROBLEMS]
    return [_problem(key, records, thinks) for key, records in chosen]


def _problem(key: str, records: list[Record], thinks: bool) -> Problem:
    first = records[0]
    language = str(first.get("language") or "")
    problem = Problem(
        id=key,
        prompt=str(first.get("prompt") or ""),
        expected=str(first.get("answer") or ""),
        family=str(first.get("family") or ""),
        language=language,
        lang=_LANGUAGE_TAGS.get(language, language),
    )
    by_stage: dict[str, dict[object, Record]] = {}
    for record in records:
        by_stage.setdefault(str(record.get("stage") or ""), {})[record.get("step")] = record
    for stage, steps in by_stage.items():
        kept = spread(list(steps.values()), _MOST_PER_STAGE)
        problem.answers += [_answer(stage, record, record is kept[-1], thinks) for record in kept]
    return problem


def spread(records: list[Record], most: int) -> list[Record]:
    """At most `most` records, evenly apart, the last one always among them."""
    if len(records) <= most:
        return records
    return [records[round(index * (len(records) - 1) / (most - 1))] for index in range(most)]


def _answer(stage: str, record: Record, final: bool, thinks: bool) -> Answer:
    text = str(record.get("completion"))
    step = record.get("step")
    thought, answer = split_completion(text, thinks)
    return Answer(
        stage=stage,
        step=step if isinstance(step, int) else None,
        thought=_shorten(thought),
        answer=None if answer is None else _shorten(answer),
        verdict=str(record.get("verdict") or "error"),
        final=final,
        cut=answer is None and _END not in text,
    )


def split_completion(text: str, thinks: bool) -> tuple[str, str | None]:
    """(thought, answer): the prompt has opened the thought, so all is thought until `</think>`.

    A model that never closes one in any sample doesn't think (`thinks` is False): all is answer.
    """
    thought, closed, answer = text.partition("</think>")
    if closed:
        return _without_marks(thought), _without_marks(answer)
    if thinks or text.lstrip().startswith("<think>"):
        return _without_marks(thought), None
    return "", _without_marks(text)


def _without_marks(text: str) -> str:
    return _MARKS.sub("", text.removeprefix("<think>")).strip()


def _shorten(text: str) -> str:
    return (
        text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text) - _LONGEST:,} more characters)"
    )
