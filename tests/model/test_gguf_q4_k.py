"""Q4_K: our bytes against the gguf library's reading of them."""

import numpy as np
import pytest

from clearseek.model.gguf.q4_k import BLOCK_BYTES, quantize_q4_k

gguf = pytest.importorskip("gguf", reason="the gguf library is absent")


def read_back(weights: np.ndarray) -> np.ndarray:
    raw = quantize_q4_k(weights)
    assert raw.dtype == np.uint8
    assert raw.shape == (*weights.shape[:-1], weights.shape[-1] // 256 * BLOCK_BYTES)
    return gguf.quants.dequantize(raw, gguf.GGMLQuantizationType.Q4_K).reshape(weights.shape)


def relative(error: np.ndarray, weights: np.ndarray) -> float:
    return float(np.sqrt(np.mean(error**2) / np.mean(weights**2)))


def gaussian(*shape: int, scale: float = 0.02) -> np.ndarray:
    return scale * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def test_error_on_weights_like_a_models_is_that_of_four_bits_and_below_q4_0():
    weights = gaussian(64, 1024)
    ours = relative(read_back(weights) - weights, weights)
    q4_0 = gguf.GGMLQuantizationType.Q4_0
    theirs = gguf.quants.dequantize(gguf.quants.quantize(weights, q4_0), q4_0)
    assert ours < 0.075
    assert ours < 0.9 * relative(theirs - weights, weights)


def test_every_weight_is_off_by_at_most_one_step():
    weights = gaussian(16, 512)
    by_block = weights.reshape(-1, 32)
    step = (by_block.max(1) - np.minimum(by_block.min(1), 0)) / 15
    error = np.abs(read_back(weights) - weights).reshape(-1, 32)
    assert (error <= 1.1 * step[:, None]).all()


def test_what_was_read_back_is_kept_to_the_last_bit():
    once = read_back(gaussian(32, 512))
    assert np.array_equal(read_back(once), once)


@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-3, 500.0])
def test_equal_weights_stay_equal_and_near(value):
    back = read_back(np.full((2, 256), value, np.float32))
    assert np.ptp(back) == 0
    assert back[0, 0] == pytest.approx(value, rel=5e-3)  # d is fp16, which is coarse below 1e-4


@pytest.mark.parametrize("sign", [1, -1])
def test_weights_of_one_sign_are_no_worse(sign):
    weights = sign * np.abs(gaussian(8, 512))
    assert relative(read_back(weights) - weights, weights) < 0.08


def test_one_large_weight_in_a_block_keeps_its_size_and_its_neighbours_blocks():
    weights = gaussian(1, 256)
    weights[0, 40] = 5.0
    back = read_back(weights)
    assert back[0, 40] == pytest.approx(5.0, rel=0.01)
    far = np.r_[0:32, 64:256]
    assert relative((back - weights)[0, far], weights[0, far]) < 0.5


def test_more_dimensions_and_many_rows_are_the_same_rows():
    weights = gaussian(3, 1000, 256)
    raw = quantize_q4_k(weights)
    assert raw.shape == (3, 1000, BLOCK_BYTES)
    assert np.array_equal(raw[2, 990:], quantize_q4_k(weights[2, 990:]))
