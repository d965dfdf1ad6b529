"""Parts computed in forked processes: the same results, and a lost process costs nothing but time."""

import os
import time

import pytest
import torch

from clearseek.engine.forked import can_fork, map_forked, threads

pytestmark = pytest.mark.skipif(not can_fork(), reason="parts are computed in forks on Linux only")


def test_results_come_in_the_order_of_their_parts():
    assert map_forked(lambda part: [part, os.getpid()][0] ** 2, [3, 4, 5], 30.0) == [9, 16, 25]


def test_parts_run_in_processes_of_their_own_with_one_thread():
    (here, _), (there, num_threads) = map_forked(
        lambda _: (os.getpid(), torch.get_num_threads()), [0, 1], 30.0
    )
    assert here == os.getpid() != there
    assert num_threads == 1


def test_a_process_that_dies_is_computed_here():
    parent = os.getpid()

    def work(part: int) -> int:
        if os.getpid() != parent:
            os._exit(3)
        return part

    assert map_forked(work, [1, 2], 30.0) == [1, 2]


def test_a_process_that_hangs_is_ended_at_the_deadline_and_computed_here():
    parent = os.getpid()

    def work(part: int) -> int:
        if os.getpid() != parent:
            time.sleep(60)
        return part

    started = time.monotonic()
    assert map_forked(work, [1, 2], 0.2) == [1, 2]
    assert time.monotonic() - started < 20


def test_no_child_is_left_and_an_error_here_ends_them():
    parent = os.getpid()

    def work(part: int) -> int:
        if os.getpid() == parent:
            raise ValueError("here")
        time.sleep(60)
        return part

    with pytest.raises(ValueError, match="here"):
        map_forked(work, [1, 2], 30.0)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
