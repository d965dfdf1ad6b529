"""Which answers have to be over by when."""

from collections.abc import Callable

from clearseek.engine.sequence import Sequence


class Deadlines:
    """Counts from when an answer is added, by a `clock` in seconds that never goes back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends: dict[Sequence, float] = {}

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._ends)

    def add(self, answer: Sequence) -> None:
        """From now on its request's time runs, where it has a deadline."""
        seconds = answer.request.deadline_seconds
        if seconds is not None:
            self._ends[answer] = self._clock() + seconds

    def drop(self, answer: Sequence) -> None:
        """It is over."""
        self._ends.pop(answer, None)

    def late(self) -> list[Sequence]:
        """Those whose time is up."""
        if not self._ends:
            return []
        now = self._clock()
        return [answer for answer, end in self._ends.items() if end <= now]
