"""A quick form of `tests/slow/test_engine_soak.py`."""

import pytest

from clearseek.engine.engine import Engine
from clearseek.model.kernels import library
from tests.engine.soak import NUM_BLOCKS, Soak


@pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")
@pytest.mark.parametrize("name", ["dense", "latent and routed"])
def test_a_random_day_changes_no_bit_of_any_answer(name, monkeypatch):
    monkeypatch.setattr(Engine, "_most_blocks", lambda self: NUM_BLOCKS)
    soak = Soak(name, 150, seed=1)
    soak.run()
    tally = soak.compare()
    assert tally.differing == 0
    assert tally.compared >= 150
    assert min(tally.paused, tally.hits, tally.swapped) > 0
    assert set(tally.finished) == {"stop", "length", "cancelled", "deadline"}
