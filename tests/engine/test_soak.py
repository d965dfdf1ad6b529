"""A quick form of `tests/slow/test_engine_soak.py`."""

import pytest

from clearseek.engine.engine import Engine
from clearseek.model.kernels import library
from tests.engine.soak import HAS_GRAMMARS, NUM_BLOCKS, Soak


@pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")
@pytest.mark.parametrize(
    ("name", "speculation"), [("dense", None), ("latent and routed", None), ("dense", "ngram")]
)
def test_a_random_day_changes_no_bit_of_any_answer(name, speculation, monkeypatch):
    monkeypatch.setattr(Engine, "_most_blocks", lambda self: NUM_BLOCKS)
    soak = Soak(name, 120, 2, speculation)
    soak.run()
    tally = soak.compare()
    assert tally.differing == 0
    assert tally.compared >= 120
    assert tally.jumped <= tally.swapped / 10
    assert min(tally.paused, tally.hits, tally.swapped, tally.refused, tally.across) > 0
    assert set(tally.finished) == {"stop", "length", "cancelled", "deadline"}
    wanted = {"stop", "thinking_budget", "best_of", "forced"} | ({"constraint"} if HAS_GRAMMARS else set())
    assert {kind for kind, count in tally.kinds.items() if count} == wanted
    assert (sum(soak.engine.acceptance.accepted) > 0) == (speculation is not None)
