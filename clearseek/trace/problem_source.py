"""Where reinforcement learning and rejection sampling take their problems from, addressed by step."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path

import numpy as np

from clearseek.config.errors import InputError
from clearseek.config.recipe import Problems
from clearseek.tasks.problem import Problem
from clearseek.tasks.registry import Split, generate
from clearseek.tasks.user import load_problems
from clearseek.text.packing import epoch_order

PROBLEMS_AT_A_TIME = 2048  # that a reject stage asks in one round
_SPLITS: tuple[Split, ...] = ("train", "held_out")
_GYM_PROBLEMS: dict[Split, int] = {"train": 2048, "held_out": 256}  # of each data set, then they repeat


class ProblemSource:
    """Problems without end for training, or a fixed number of held-out ones."""

    def __init__(self, problems: Problems, seed: int, stream: str) -> None:
        self.problems, self.seed, self.stream = problems, seed, stream
        self.pool = {split: self._load(split) for split in _SPLITS} if self.is_finite else {}
        self._last_order = (0, 0), np.empty(0, np.int64)

    @property
    def is_finite(self) -> bool:
        """Whether the problems come from a file or a fixed data set, so that they repeat."""
        return self.problems.path is not None or self.problems.gym is not None

    def is_used_up(self, without: Collection[str]) -> bool:
        """Whether nothing is left to draw once the problems in `without` (ids) are passed over."""
        return self.is_finite and all(name in without for name, _ in self._named)

    def draw(self, round: int, count: int, without: Collection[str] = ()) -> list[Problem]:
        """Up to `count` training problems for a round of sampling; those in `without` (ids) are passed over.

        None where it is used up. No problem comes twice: its samples, addressed by it, would be the same.
        """
        if not self.is_finite:
            return _unique(self._generate(count, "train", f"{self.stream}/{round}"))
        pool = self.pool["train"]
        if without:
            pool = [problem for name, problem in self._named if name not in without]
        if not pool:
            return []
        places = (divmod(position, len(pool)) for position in range(round * count, (round + 1) * count))
        return _unique([pool[self._order(len(pool), epoch)[place]] for epoch, place in places])

    def batch(self, round: int, total: int) -> list[Problem]:
        """What a reject stage of `total` problems asks in a round (from 0)."""
        count = min(PROBLEMS_AT_A_TIME, total - round * PROBLEMS_AT_A_TIME)
        return self.draw(round, PROBLEMS_AT_A_TIME)[: max(count, 0)]

    def _order(self, size: int, epoch: int) -> np.ndarray:
        """The order of one pass over the pool; the last one asked for is remembered."""
        if self._last_order[0] != (size, epoch):
            self._last_order = (size, epoch), epoch_order(size, self.seed, self.stream, epoch)
        return self._last_order[1]

    @cached_property
    def _named(self) -> list[tuple[str, Problem]]:
        """The pool's training problems with their ids, which are hashes: computed once."""
        return [(problem.id, problem) for problem in self.pool["train"]]

    def held_out(self, count: int) -> list[Problem]:
        """Up to `count` problems that training never sees."""
        if not self.is_finite:
            return self._generate(count, "held_out", self.stream)
        pool = self.pool["held_out"]
        return [pool[i] for i in epoch_order(len(pool), self.seed, "held_out", 0)[:count]]

    def _generate(self, count: int, split: Split, stream: str) -> list[Problem]:
        chosen = self.problems
        return generate(chosen.tasks, chosen.languages, chosen.levels, count, self.seed, split, stream)

    def _load(self, split: Split) -> list[Problem]:
        if self.problems.gym is not None:
            from clearseek.tasks.gym import load_gym

            count = _GYM_PROBLEMS[split]
            return [p for name in self.problems.gym for p in load_gym(name, count, self.seed, split)]
        assert self.problems.path is not None
        if self.problems.held_out_path is not None:
            return load_problems(
                Path(self.problems.path if split == "train" else self.problems.held_out_path)
            )
        return _part(load_problems(Path(self.problems.path)), split, self.problems.path)


def _unique(problems: list[Problem]) -> list[Problem]:
    return list({problem.id: problem for problem in problems}.values())


def _part(problems: list[Problem], split: str, path: str) -> list[Problem]:
    """The training or held-out problems of one file, parted by content hash."""
    part = [problem for problem in problems if problem.held_out == (split == "held_out")]
    if not part:
        raise InputError(
            f"{path}: {len(problems)} problems are too few to keep one in eight for evaluation; "
            "add problems or give held_out_path"
        )
    return part
