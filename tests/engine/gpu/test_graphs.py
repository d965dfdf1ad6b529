"""Decoding steps that are recorded: buckets, what fills them up, what is read again; a graph that is none."""

import pytest

pytest.importorskip("triton", reason="triton is not installed; make test-gpu brings it")

import numpy as np
import torch

from clearseek.engine.formats import Format
from clearseek.engine.gpu.graphs import BUCKETS, bucket_of
from clearseek.engine.gpu.runner import GpuRunner
from clearseek.engine.runner import Batch
from tests.engine.gpu.device import DEVICE
from tests.model.tiny import CONFIGS, some_tokens, tiny_model

CONFIG = CONFIGS["qwen3"]
TABLES = np.array([[2], [0], [1]], np.int32)


class Fake:
    """Records by computing once, and plays again into the same memory, as a CUDA graph does."""

    def __init__(self):
        self.recorded = self.played = 0

    def __call__(self, run):
        self.recorded += 1
        kept = run().clone()

        def replay():
            self.played += 1
            return kept.copy_(run())

        return replay


def model_of(seed: int = 0):
    return tiny_model(CONFIG, seed).requires_grad_(False).eval().to(DEVICE)


def batch_of(tokens: torch.Tensor, place: int, slots: list[int], wanted: list[int] | None = None) -> Batch:
    chosen = np.array(slots)
    positions = np.full(len(slots), place)
    asked = np.arange(len(slots)) if wanted is None else np.array(wanted)
    return Batch(tokens.numpy()[chosen, positions], positions, chosen, TABLES, asked)


def test_buckets_hold_what_they_are_for():
    assert [bucket_of(count) for count in (1, 2, 3, 5, 256, 257)] == [1, 2, 4, 8, 256, None]
    assert all(bucket_of(size) == size for size in BUCKETS)


def test_a_recorded_step_is_the_step_bit_by_bit():
    """In every order of batches; and what fills a bucket up changes nobody's cache."""
    fake, model, tokens = Fake(), model_of(), some_tokens(CONFIG, 3, 6)
    graphs, eager = (
        GpuRunner(model, Format("bfloat16"), 3, capture=fake),
        GpuRunner(model, Format("bfloat16"), 3),
    )
    eager.graphs.step = None  # so that nothing is recorded there
    for place, slots in enumerate(([0, 1, 2], [2, 0, 1], [0, 1], [1, 0, 2])):
        batch = batch_of(tokens, place, slots)
        found, (wanted, _) = graphs.step(batch), eager.step_with_states(batch)
        assert torch.equal(found, wanted)
    assert (fake.recorded, fake.played) == (2, 4)
    for ours, theirs in zip(graphs.caches, eager.caches, strict=True):
        for kept, known in zip(ours, theirs, strict=True):
            assert torch.equal(kept[:3], known[:3])


def test_scores_are_kept_when_the_next_step_is_played_and_only_those_asked_for_are_given():
    runner, tokens = GpuRunner(model_of(), Format("float32"), 3, capture=Fake()), some_tokens(CONFIG, 3, 3)
    first = runner.step(batch_of(tokens, 0, [0, 1]))
    before = first.clone()
    second = runner.step(batch_of(tokens, 1, [0, 1], wanted=[1]))
    assert second.shape == (1, CONFIG.vocab_size)
    assert torch.equal(first, before)


def test_new_weights_are_read_in_place_and_new_memory_is_recorded_anew():
    fake, tokens = Fake(), some_tokens(CONFIG, 3, 3)
    runner = GpuRunner(model_of(), Format("float32"), 3, capture=fake)
    runner.step(batch_of(tokens, 0, [0, 1]))
    runner.refresh(model_of(seed=1))
    fresh = GpuRunner(model_of(seed=1), Format("float32"), 3)
    found = runner.step(batch_of(tokens, 0, [0, 1]))
    assert torch.equal(found, fresh.step(batch_of(tokens, 0, [0, 1])))
    assert fake.recorded == 1
    runner.grow(5)
    found = runner.step(batch_of(tokens, 1, [0, 1]))
    assert torch.equal(found, fresh.step(batch_of(tokens, 1, [0, 1])))
    assert fake.recorded == 2


def test_memory_is_told():
    runner, tokens = GpuRunner(model_of(), Format("bfloat16"), 3), some_tokens(CONFIG, 3, 3)
    runner.step(batch_of(tokens, 0, [0, 1]))
    told = runner.num_bytes
    per_token = sum(sum(layer.attention.cache_sizes) for layer in runner.model.layers)
    assert told["cache"] == 4 * 64 * per_token * 2  # three blocks and the one that takes what nobody reads
    assert told["weights"] > 2 * sum(part.numel() for part in runner.model.layers.parameters())
    assert told["inputs"] > 0
