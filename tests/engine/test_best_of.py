"""Which of several completions is answered with."""

from hypothesis import given
from hypothesis import strategies as st

from clearseek.engine.best_of import pick_best
from clearseek.engine.request import Completion

LOG_PROBS = st.lists(st.floats(-9, 0), min_size=1, max_size=5)


@given(st.lists(LOG_PROBS, min_size=1, max_size=6), st.integers(1, 6))
def test_the_highest_means_come_first(groups, count):
    completions = [Completion([1] * len(values), values, "stop") for values in groups]
    best = pick_best(completions, count)
    means = [sum(item.log_probs) / len(item.log_probs) for item in best]
    assert means == sorted((sum(values) / len(values) for values in groups), reverse=True)[:count]


def test_what_came_to_no_end_of_its_own_is_chosen_last():
    reasons = {"error": -0.1, "deadline": -0.2, "length": -3.0, "stop": -2.0}
    best = pick_best([Completion([1], [value], reason) for reason, value in reasons.items()], 3)
    assert [item.finish_reason for item in best] == ["stop", "length", "error"]


def test_longer_is_neither_better_nor_worse_and_equals_keep_their_order():
    short, long = Completion([1], [-1.0], "stop"), Completion([1, 2], [-1.0, -1.0], "stop")
    assert pick_best([short, long], 2) == [short, long]
    assert pick_best([long, short], 1)[0] is long


def test_forced_tokens_do_not_count():
    """The tag that closed a thought at its budget was nobody's choice."""
    forced = Completion([1, 2], [-0.5, -9.0], "stop", forced=frozenset([1]))
    assert pick_best([Completion([1], [-1.0], "stop"), forced], 1) == [forced]


def test_what_holds_no_drawn_token_is_last():
    empty, some = Completion([], [], "length"), Completion([1], [-50.0], "stop")
    assert pick_best([empty, some], 2) == [some, empty]
