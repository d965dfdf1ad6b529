"""Two loads take turns: each is measured while the other is stopped, and both go on afterwards."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.in_turns import Side, family, in_turns

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="there is no /proc here")
COUNT = """
import sys, time, numpy
count = numpy.memmap(sys.argv[1], numpy.int64, "r+")
while True:
    time.sleep(0.001)
    count[0] += int(sys.argv[2])
"""


@pytest.fixture
def begin(tmp_path):
    """Starts a load that counts so many tokens a millisecond, as a child of another process."""
    started = []

    def start(step):
        path = tmp_path / str(step)
        np.zeros(1, np.int64).tofile(path)
        child = [sys.executable, "-c", COUNT, str(path), str(step)]
        command = [sys.executable, "-c", f"import subprocess; subprocess.run({child!r}, timeout=60)"]
        started.append(subprocess.Popen(command))
        count = np.memmap(path, np.int64, "r")
        return Side(started[-1].pid, lambda: int(count[0]))

    yield start
    for process in started:
        for one in reversed(family(process.pid)):
            subprocess.run(["kill", "-9", str(one)], check=False, timeout=10)
        process.wait(10)


async def grown(load, before=0):
    """Until it has counted more: who waits for this has a bound."""
    while load.tokens() <= before:
        await asyncio.sleep(0.02)


def test_the_share_is_that_of_their_speeds_and_both_go_on(begin):
    async def measure():
        first, second = begin(8), begin(2)
        for one in (first, second):
            await grown(one)
        found = await in_turns(first, second, turns=6, seconds=0.2)
        for one in (first, second):
            await grown(one, one.tokens())
        return found

    found = asyncio.run(asyncio.wait_for(measure(), 60))
    assert found["share"] == pytest.approx(0.25, rel=0.2)
    assert len(found["shares"]) == found["turns"] == 6


def test_who_is_stopped_counts_nothing(begin):
    async def measure():
        load = begin(1)
        await grown(load)
        load.stop()
        await asyncio.sleep(0.1)
        stopped = load.tokens()
        await asyncio.sleep(0.3)
        later = load.tokens()
        load.go_on()
        await grown(load, later)
        return stopped, later

    stopped, later = asyncio.run(asyncio.wait_for(measure(), 60))
    assert stopped == later
