"""Which of several completions to answer with."""

import math
from collections.abc import Sequence

from clearseek.engine.request import Completion


def mean_log_prob(completion: Completion) -> float:
    """Mean log-probability of the tokens that were drawn, at the temperature they were drawn at."""
    drawn = [value for place, value in enumerate(completion.log_probs) if place not in completion.forced]
    return sum(drawn) / len(drawn) if drawn else -math.inf


def pick_best(completions: Sequence[Completion], count: int) -> list[Completion]:
    """The `count` completions of the highest mean log-probability, best first; of equal ones the earlier.

    What came to no end of its own, late or with an error, is chosen last.
    """

    def goodness(completion: Completion) -> tuple[bool, float]:
        return completion.finish_reason in ("stop", "length"), mean_log_prob(completion)

    return sorted(completions, key=goodness, reverse=True)[:count]
