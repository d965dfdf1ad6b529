"""Rows with settings of their own, drawn together: against exact distributions, and against themselves alone."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clearseek.engine.fixed_point import draw as draw_place
from clearseek.engine.row_sampler import Drawn, distribution, draw
from clearseek.engine.streams import uniforms
from clearseek.model.kernels.library import why_not
from clearseek.model.log_probs import log_probs_from_logits
from tests.engine.rows import changed, exact, row, softmax

LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0, 1.5, 0.2], np.float32)
DRAWS = 40_000
LIMITS = {1: 10.83, 2: 13.82, 3: 16.27, 4: 18.47, 5: 20.52, 6: 22.46, 7: 24.32}  # 99.9 % of chi-square
SEEN = {"prompt": (1, 3), "said": (6, 6, 0)}
SETTINGS = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7, "top_k": 3},
    {"top_k": 1},
    {"top_k": 100},
    {"top_p": 0.3},
    {"top_p": 0.8},
    {"top_p": 1e-9},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"min_p": 0.05, "top_k": 5, "top_p": 0.9, "temperature": 1.3},
    {"repetition_penalty": 1.5},
    {"repetition_penalty": 0.5, "top_p": 0.9},
    {"frequency_penalty": 0.7, "presence_penalty": -0.4},
    {"logit_bias": {0: -100.0, 5: 4.0}, "top_k": 4},
    {"temperature": 0.0, "repetition_penalty": 2.0},
    {"temperature": 0.0},
]
FIELDS = ("tokens", "log_probs", "processed_log_probs", "kept_mass", "entropies", "forced")


def drawn_of(own: dict, count: int = DRAWS, dtype: torch.dtype = torch.float32) -> Drawn:
    """Many draws of one row's distribution."""
    rows = [row(len(LOGITS), **SEEN, **own)] * count
    logits = torch.from_numpy(LOGITS).expand(count, -1)
    return draw(rows, logits, torch.from_numpy(uniforms(5, 0, count)), dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("own", SETTINGS, ids=str)
def test_draws_follow_the_exact_distribution(own, dtype):
    """In bf16 the kernels draw, where there are any."""
    probs = exact(LOGITS, **SEEN, **own)
    counts = np.bincount(drawn_of(own, dtype=dtype).tokens.numpy(), minlength=len(LOGITS))
    kept = np.flatnonzero(probs)
    assert set(np.flatnonzero(counts)) <= set(kept)
    if len(kept) > 1:
        expected = probs[kept] * DRAWS
        assert ((counts[kept] - expected) ** 2 / expected).sum() < LIMITS[len(kept) - 1]


@pytest.mark.parametrize("own", SETTINGS, ids=str)
def test_the_reported_numbers_are_those_of_the_distributions(own):
    drawn = drawn_of(own, 200)
    tokens = drawn.tokens.numpy()
    temperature = own.get("temperature", 1.0) or 1.0
    raw = log_probs_from_logits(torch.from_numpy(LOGITS), temperature)
    assert torch.equal(drawn.log_probs, raw[drawn.tokens])
    np.testing.assert_allclose(drawn.entropies, -(raw.exp() * raw).sum().expand(200), rtol=1e-5)
    probs = exact(LOGITS, **SEEN, **own)
    np.testing.assert_allclose(drawn.processed_log_probs, np.log(probs[tokens]), atol=2e-6)
    mass = softmax(changed(LOGITS, **SEEN, **own))[probs > 0].sum()
    np.testing.assert_allclose(drawn.kept_mass, np.full(200, mass), rtol=1e-5)


@pytest.mark.parametrize("own", SETTINGS, ids=str)
def test_the_distribution_for_speculation_is_the_one_drawn_from(own):
    made = distribution([row(len(LOGITS), **SEEN, **own)], torch.from_numpy(LOGITS).unsqueeze(0))
    np.testing.assert_allclose(made[0].exp(), exact(LOGITS, **SEEN, **own), atol=1e-6)


SETTING = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.sampled_from([0.0, 0.5, 1.0, 1.0, 1.3]),
        "top_k": st.sampled_from([0, 1, 3, 50, 70, 500]),
        "top_p": st.sampled_from([0.05, 0.5, 0.9, 0.999, 1.0]),
        "min_p": st.sampled_from([0.0, 0.01, 0.3, 1.0]),
        "repetition_penalty": st.sampled_from([1.0, 0.8, 1.3]),
        "frequency_penalty": st.sampled_from([0.0, 0.5, -1.0]),
        "presence_penalty": st.sampled_from([0.0, 1.0]),
        "logit_bias": st.dictionaries(st.integers(0, 89), st.floats(-3, 3, width=16), max_size=3),
    },
)


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_row_is_the_same_to_the_bit_whatever_stands_beside_it(data, dtype):
    """Scores in steps, so that many are equal, beside ones that are not."""
    size = data.draw(st.sampled_from([5, 64, 90, 1000]))
    count = data.draw(st.integers(2, 7))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    logits = torch.randn(count, size, generator=generator) * 3
    logits[::2] = (logits[::2] * 2).round() / 2
    rows = []
    for _ in range(count):
        own = data.draw(SETTING)
        own["logit_bias"] = {token % size: value for token, value in own.get("logit_bias", {}).items()}
        rows.append(row(size, prompt=(1, 2), said=data.draw(st.lists(st.integers(0, 4), max_size=4)), **own))
    numbers = torch.randint(2**24, (count,), generator=generator) * 2.0**-24
    together = draw(rows, logits, numbers, dtype)
    for place, own_row in enumerate(rows):
        alone = draw([own_row], logits[place : place + 1], numbers[place : place + 1], dtype)
        for field in FIELDS:
            assert torch.equal(getattr(alone, field)[0], getattr(together, field)[place]), field


def test_a_large_vocabulary_on_two_threads_changes_no_bit():
    """Where a product of rows and vocabulary is large, torch shares it out by how many rows there are."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, 60_001, generator=generator) * 2
    numbers = torch.rand(5, generator=generator)
    rows = [
        row(60_001, **own)
        for own in ({}, {"top_p": 0.99}, {"top_k": 9}, {"presence_penalty": 1.0}, {"min_p": 0.3})
    ]
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = draw(rows, logits, numbers)
        alone = [draw(rows[i : i + 1], logits[i : i + 1], numbers[i : i + 1]) for i in range(5)]
    finally:
        torch.set_num_threads(threads)
    for field in FIELDS:
        assert torch.equal(torch.cat([getattr(one, field) for one in alone]), getattr(together, field)), field


@pytest.mark.skipif(why_not() is not None, reason="no kernels here")
def test_asking_for_nothing_but_a_temperature_takes_the_kernel_beside_any_row():
    from clearseek.model.kernels import functions as kernels

    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    numbers = torch.tensor([0.25, 0.5, 0.75])
    drawn = draw([row(40), row(40, top_k=2), row(40, temperature=0.5)], logits, numbers, torch.bfloat16)
    for place, temperature in ((0, 1.0), (2, 0.5)):
        tokens, log_probs, entropies, _ = kernels.draw(
            logits[place : place + 1], numbers[place : place + 1], temperature
        )
        assert tokens[0] == drawn.tokens[place]
        assert log_probs[0] == drawn.log_probs[place]
        assert entropies[0] == drawn.entropies[place]


@pytest.mark.skipif(why_not() is not None, reason="no kernels here")
@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from([2, 17, 64, 500, 5000]),
    st.sampled_from([0, 1, 2, 16, 70, 499, 6000]),
    st.sampled_from([1e-9, 0.05, 0.5, 0.95, 0.999, 1.0]),
    st.sampled_from([0.3, 1.0, 1.5]),
    st.sampled_from(["spread", "equal", "flat", "some can't be"]),
    st.integers(0, 1000),
)
def test_kernels_cut_off_what_the_plain_form_does(size, top_k, top_p, temperature, kind, seed):
    """Tokens may differ where a chance falls between probabilities that are rounded apart: the last units of 2^-38."""
    assume(top_p < 1 or 0 < top_k < size)  # else each draws in an order of its own
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, size, generator=generator) * (0.01 if kind == "flat" else 3)
    if kind == "equal":
        logits = logits.round()
    if kind == "some can't be":
        logits[:, 1::2] = -torch.inf
    numbers = torch.randint(2**24, (8,), generator=generator) * 2.0**-24
    rows = [row(size, top_k=top_k, top_p=top_p, temperature=temperature)] * 8
    found, wanted = (draw(rows, logits, numbers, dtype) for dtype in (torch.bfloat16, torch.float32))
    spread, places = distribution(rows, logits), torch.arange(8)
    assert torch.isfinite(spread[places, found.tokens]).all(), "drawn from what is cut off"
    assert (found.tokens != wanted.tokens).sum() <= 1
    same = found.tokens == wanted.tokens
    torch.testing.assert_close(
        found.kept_mass, wanted.kept_mass, rtol=0, atol=1e-5 + 1.5 / size * (kind == "flat")
    )
    torch.testing.assert_close(
        found.processed_log_probs[same], wanted.processed_log_probs[same], rtol=0, atol=2e-3
    )


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 2**38), min_size=1, max_size=50).filter(any), st.integers(0, 2**24 - 1))
def test_a_weight_of_0_is_never_drawn(weights, chance):
    total = sum(weights)
    assume_total = min(1.0, 2**38 / total)
    scaled = [int(weight * assume_total) for weight in weights]
    if not any(scaled):
        return
    place = int(draw_place(torch.tensor([scaled]), torch.tensor([chance * 2.0**-24]))[0])
    assert scaled[place] > 0
    assert sum(scaled[:place]) * 2**24 <= chance * sum(scaled) + 2**24


def test_neither_scores_nor_rows_are_changed_by_drawing():
    logits = torch.from_numpy(LOGITS).expand(2, -1).clone()
    rows = [row(8, said=(1, 1), frequency_penalty=1.0), row(8, logit_bias={1: 5.0})]
    first = draw(rows, logits, torch.tensor([0.5, 0.5]))
    assert torch.equal(logits, torch.from_numpy(LOGITS).expand(2, -1))
    assert torch.equal(draw(rows, logits, torch.tensor([0.5, 0.5])).log_probs, first.log_probs)
