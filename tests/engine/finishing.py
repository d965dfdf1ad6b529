"""Runs an engine until nothing is left to do, with its blocks counted after every step."""

from clearseek.engine.engine import Engine
from clearseek.engine.request import Completion
from clearseek.engine.sequence import Sequence


def finished(engine: Engine) -> dict[Sequence, Completion]:
    """What became of everything that was submitted."""
    found = []
    while not engine.is_idle:
        found += engine.step()
        engine.scheduler.check()
    return dict(found)
