"""10,000 random requests over small caches: every block is free in the end, and every answer what it is alone."""

import pytest

from clearseek.engine.engine import Engine
from clearseek.model.kernels import library
from tests.engine.soak import NUM_BLOCKS, Soak, Tally

needs_kernels = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")


def day(monkeypatch: pytest.MonkeyPatch, name: str, count: int, speculation: str | None = None) -> Tally:
    monkeypatch.setattr(Engine, "_most_blocks", lambda self: NUM_BLOCKS)
    soak = Soak(name, count, 0, speculation)
    soak.run()
    tally = soak.compare()
    print(f"{name}: {tally}")
    assert tally.compared >= count
    assert min(tally.paused, tally.hits, tally.swapped, tally.refused, tally.across) > 0
    assert set(tally.finished) == {"stop", "length", "cancelled", "deadline"}
    return tally


@needs_kernels
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["dense", "latent and routed"])
def test_with_kernels_no_bit_of_any_answer_is_another(name, monkeypatch):
    assert day(monkeypatch, name, 4500).differing == 0


@needs_kernels
@pytest.mark.timeout(3600)
def test_guesses_change_no_bit_either(monkeypatch):
    assert day(monkeypatch, "dense", 400, "ngram").differing == 0


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["dense without kernels", "latent and routed without kernels"])
def test_without_kernels_every_answer_comes_to_an_end(name, monkeypatch):
    """PyTorch's products round as their batch has it, so that bits differ and sometimes a token."""
    day(monkeypatch, name, 300)
