"""What is kept of a distribution against a loop over its tokens, where all are looked at and where only some are."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.engine.row_sampler import distribution
from tests.engine.rows import exact, row


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([3, 64, 65, 400]),
    st.sampled_from([0, 1, 5, 63, 64, 65, 300]),
    st.sampled_from([1.0, 0.95, 0.6, 0.01]),
    st.sampled_from([0.0, 0.02, 0.5]),
    st.sampled_from([0.3, 2.0, 8.0]),
)
def test_what_is_kept_is_what_a_loop_keeps(seed, size, top_k, top_p, min_p, spread):
    logits = (np.random.default_rng(seed).standard_normal(size) * spread).astype(np.float32)
    own = {"top_k": top_k, "top_p": top_p, "min_p": min_p}
    made = distribution([row(size, **own)], torch.from_numpy(logits).unsqueeze(0))[0].exp().numpy()
    wanted = exact(logits, **own)
    np.testing.assert_allclose(made, wanted, atol=2e-6)


@pytest.mark.parametrize("size", [10, 200])
def test_tokens_as_likely_as_the_kth_are_all_kept(size):
    logits = torch.zeros(1, size)
    logits[0, 3] = 1.0
    kept = distribution([row(size, top_k=2)], logits)[0] > -torch.inf
    assert kept.all()


@pytest.mark.parametrize("size", [10, 200])
def test_of_equal_tokens_top_p_keeps_the_lower_ids(size):
    kept = distribution([row(size, top_p=0.5)], torch.zeros(1, size))[0] > -torch.inf
    assert kept.nonzero().flatten().tolist() == list(range(size // 2))
