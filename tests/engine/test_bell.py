"""A bell ends a call of many tokens after the one that it is at, if it listens by then, and changes none of them."""

import itertools

import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.speculation import Speculation
from clearseek.model.kernels import library
from tests.model.kernel_inputs import lane_sized

pytestmark = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")
REQUEST = Request((5, 6, 7), 1, 1, Sampling(max_tokens=40))


def begun(**settings):
    """An engine whose kernels are to decode on, and its answer, whose prompt is read."""
    model = lane_sized("deepseek_v3", max_position_embeddings=1024, num_mtp_layers=1).requires_grad_(False)
    engine = Engine(model, (), torch.float32, **settings)
    (answer,) = engine.submit(REQUEST)
    engine.step()
    return engine, answer


@pytest.mark.parametrize("speculation", [None, Speculation("mtp")])
def test_a_rung_bell_ends_each_call_after_a_turn(speculation):
    engine, _ = begun(speculation=speculation)
    wanted = Engine(engine.model, (), torch.float32).generate([REQUEST])[0][0].tokens
    engine.bell.ring()
    counts, found = [int(engine.slots.num_sampled[0])], []
    while not engine.is_idle and len(counts) < 4:
        found = engine.step()
        counts.append(int(engine.slots.num_sampled[0]))
    most = 1 if speculation is None else 1 + speculation.num_tokens
    assert found == []
    assert all(1 <= later - earlier <= most for earlier, later in itertools.pairwise(counts))
    engine.bell.silence()
    ((_, completion),) = engine.step()
    assert completion.tokens == wanted


def test_a_bell_is_heard_when_it_listens():
    """Before, calls go on: what it was rung for waits for others."""
    engine, _ = begun()
    engine.bell.listen_from(5)
    engine.bell.ring()
    before = int(engine.slots.num_sampled[0])
    assert engine.step() == []
    assert int(engine.slots.num_sampled[0]) == before + 5
    engine.bell.listen_from(0)
    assert engine.step() == []
    assert int(engine.slots.num_sampled[0]) == before + 6
