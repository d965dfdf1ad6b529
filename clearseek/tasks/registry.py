"""Every family by name, and problems drawn by address: the same (seed, stream, i) is the same problem."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from hashlib import blake2b
from random import Random
from typing import Literal, Protocol

from clearseek.config.errors import InputError
from clearseek.tasks.families import (
    algebra,
    arithmetic,
    calendar,
    countdown,
    digits,
    logic,
    sequences,
    sorting,
    units,
    word_problems,
)
from clearseek.tasks.problem import LANGUAGES, Problem

Split = Literal["train", "held_out"]
_MOST_TRIES = 4000


class Family(Protocol):
    """What each module of `clearseek.tasks.families` provides."""

    NAME: str
    LEVELS: int

    def generate(self, rng: Random, level: int, language: str) -> Problem:
        """A problem; the same stream gives the same problem in every language."""
        ...


_MODULES: tuple[Family, ...] = (
    arithmetic, countdown, sorting, digits, calendar, units, algebra, logic, sequences, word_problems,
)  # fmt: skip
FAMILIES: dict[str, Family] = {family.NAME: family for family in _MODULES}


def generate(
    families: Sequence[str] | None,
    languages: Sequence[str],
    levels: Sequence[int],
    count: int,
    seed: int,
    split: Split,
    stream: str = "",
) -> list[Problem]:
    """`count` problems, families then languages then levels taken in turn (None: all families).

    The i-th depends on (seed, stream, i) alone, except that a `held_out` list repeats no problem: it draws
    again instead. A longer list begins with the shorter one. Raises InputError where a name is unknown or a
    cell has too few held-out problems.
    """
    cells = _cells(families, languages, levels)
    seen: set[str] = set()
    problems = []
    for i in range(count):
        problem = _draw(*cells[i % len(cells)], f"{seed}/{stream}/{i}", split, seen)
        if split == "held_out":
            seen.add(problem.id)
        problems.append(problem)
    return problems


def translate(problem: Problem, language: str) -> Problem:
    """The same generated problem in another language. Raises InputError for a user's own problem."""
    if problem.seed is None:
        raise InputError(f"problem {problem.id} was not generated, so it cannot be given in another language")
    return at(FAMILIES[problem.family], problem.level, language, problem.seed)


def at(family: Family, level: int, language: str, seed: int) -> Problem:
    """The problem that a family draws from one seed."""
    return replace(family.generate(Random(seed), level, language), seed=seed)


def _draw(family: Family, language: str, level: int, address: str, split: Split, seen: set[str]) -> Problem:
    wanted = split == "held_out"
    for attempt in range(_MOST_TRIES):
        problem = at(family, level, language, _seed_of(f"{address}/{attempt}"))
        if problem.held_out == wanted and (not wanted or problem.id not in seen):
            return problem
    cell = f"{family.NAME} level {level} in {language}"
    raise InputError(f"tasks: {cell} has too few {split} problems; ask for fewer, or for more cells")


def _seed_of(address: str) -> int:
    return int.from_bytes(blake2b(address.encode(), digest_size=8).digest(), "big")


def _cells(
    families: Sequence[str] | None, languages: Sequence[str], levels: Sequence[int]
) -> list[tuple[Family, str, int]]:
    chosen = [_known("family", name, FAMILIES) for name in (families if families is not None else FAMILIES)]
    for language in languages:
        _known("language", language, dict.fromkeys(LANGUAGES))
    cells = [
        (FAMILIES[name], language, level)
        for level in levels
        for language in languages
        for name in chosen
        if 1 <= level <= FAMILIES[name].LEVELS
    ]
    missing = [level for level in levels if all(level != cell[2] for cell in cells)]
    if missing or not cells:
        raise InputError(
            f"tasks: no family asked for has level {missing or list(levels)}; they go from 1 to 3"
        )
    return cells


def _known(what: str, name: str, known: dict[str, Family] | dict[str, None]) -> str:
    if name in known:
        return name
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
    raise InputError(f"tasks: unknown {what} {name!r}{hint}")
