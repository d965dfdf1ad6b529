"""The shapes of learning-rate schedules."""

import pytest
from pydantic import ValidationError

from clearseek.config.recipe import Schedule
from clearseek.train.schedule import rate_at


def shares(total=100, **settings):
    return [rate_at(Schedule(**settings), step, total) for step in range(total)]


@pytest.mark.parametrize("kind", ["constant", "cosine", "wsd"])
def test_warm_up_is_linear_and_never_zero(kind):
    rates = shares(kind=kind, warmup=0.1, decay=0.3)
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1


@pytest.mark.parametrize("kind", ["constant", "cosine", "wsd"])
@pytest.mark.parametrize("total", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("final", [0.0, 0.1])
def test_every_step_learns_something_and_none_too_much(kind, total, final):
    rates = shares(total, kind=kind, warmup=0.1, decay=0.5, final=final)
    assert all(0 < rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


def test_wsd_stays_at_the_peak_and_then_falls_in_a_line():
    rates = shares(kind="wsd", warmup=0.0, decay=0.25, final=0.2)
    assert rates[:75] == [1.0] * 75
    assert rates[75:] == pytest.approx([0.2 + 0.8 * (25 - i) / 25 for i in range(25)])


def test_cosine_is_half_way_in_the_middle():
    rates = shares(kind="cosine", warmup=0.0, final=0.1)
    assert rates[0] == 1
    assert rates[50] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)


def test_constant_is_constant():
    assert shares(kind="constant", warmup=0.0) == [1.0] * 100


def test_more_than_the_whole_stage_is_refused():
    with pytest.raises(ValidationError, match="more than the whole stage"):
        Schedule(kind="wsd", warmup=0.6, decay=0.5)
