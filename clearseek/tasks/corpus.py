"""Generated problems as training documents: prompt, thought and answer, in one of a few styles."""

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import NamedTuple

from clearseek.config.errors import InputError
from clearseek.tasks.problem import LANGUAGES, Problem
from clearseek.tasks.registry import generate, translate

STYLES = ("worked", "bare", "foreign")


class Example(NamedTuple):
    """One document before its chat format."""

    prompt: str
    thought: str
    answer: str


def render(problem: Problem, style: str, rng: Random) -> Example:
    """`worked`: the thought in the problem's language; `bare`: none; `foreign`: in another language."""
    if style == "worked":
        return Example(problem.prompt, problem.solution, problem.answer)
    if style == "bare":
        return Example(problem.prompt, "", problem.answer)
    if style == "foreign":
        language = rng.choice([other for other in LANGUAGES if other != problem.language])
        return Example(problem.prompt, translate(problem, language).solution, problem.answer)
    raise InputError(f"tasks: unknown style {style!r}; known: {', '.join(STYLES)}")


def documents(
    families: Sequence[str] | None,
    languages: Sequence[str],
    levels: Sequence[int],
    count: int,
    seed: int,
    styles: Mapping[str, float],
    stream: str = "corpus",
) -> Iterator[Example]:
    """`count` training examples, each in a style drawn by weight from its own stream."""
    names, weights = list(styles), list(styles.values())
    for i, problem in enumerate(generate(families, languages, levels, count, seed, "train", stream)):
        rng = Random(f"{seed}/{stream}/{i}/style")
        yield render(problem, rng.choices(names, weights)[0], rng)
