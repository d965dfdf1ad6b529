"""10,000 requests of random shape, alone and in random batches, read whole or in steps, with the cache and without.

What an answer is must not depend on any of it: no bit of a token, of a log-probability, of an entropy. And as many
again beside the trainer's forward pass over packed rows: no bit of a log-probability.
"""

import random

import pytest
import torch

from benchmarks.engine_bench.exactness import (
    BATCH,
    REQUESTS,
    Beside,
    Compared,
    compare_in_turns,
    random_requests,
)
from clearseek.engine.engine import Engine
from clearseek.engine.request import Completion, Request
from clearseek.model.kernels import library
from clearseek.model.log_probs import target_log_probs
from tests.model.kernel_inputs import lane_sized

pytestmark = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")

WHOLE = {"kv_lora_rank": 64, "qk_nope_head_dim": 32, "num_dense_layers": 1, "num_experts_per_token": 2}
WINDOWS = ("sliding_attention", "full_attention")
SHAPES = {
    "qwen3": lambda: lane_sized("qwen3", max_position_embeddings=512, num_layers=2),
    "llama": lambda: lane_sized(
        "llama", max_position_embeddings=512, num_layers=2, sliding_window=40, layer_types=WINDOWS
    ),
    "deepseek_v3": lambda: lane_sized("deepseek_v3", max_position_embeddings=512, num_layers=2, **WHOLE),
}
FORMATS = ("fp32", "bf16", "int8", "int4")


@pytest.mark.timeout(3600)
def test_no_bit_depends_on_what_is_computed_beside_it():
    engines = {
        f"{name} {form}": Beside(SHAPES[name]().requires_grad_(False), form)
        for name in SHAPES
        for form in FORMATS
    }
    found = compare_in_turns(engines, REQUESTS)
    whole = sum(found.values(), Compared())
    print(f"{whole.requests} requests, {whole.numbers} numbers compared, {whole.differing} differ")
    assert all(compared.hits for compared in found.values()), "caches found nothing"
    assert whole.requests >= REQUESTS
    assert whole.differing == 0


TRAINED = {
    "qwen3": lambda: lane_sized("qwen3", max_position_embeddings=512, num_layers=2),
    "llama": lambda: lane_sized("llama", max_position_embeddings=512, num_layers=2, qkv_bias=True),
    "deepseek_v3": SHAPES["deepseek_v3"],
}


def said_by_training(model, requests: list[Request], answers: list[list[Completion]]) -> list[torch.Tensor]:
    """Log-probabilities of every answer, from whole rows in which documents stand one behind the other."""
    documents = [(*request.prompt, *one.tokens) for request, (one,) in zip(requests, answers, strict=True)]
    rows, places = [[], [], []], []
    for number, document in enumerate(documents):
        places.append((number % 3, len(rows[number % 3])))
        rows[number % 3] += [(token, number + 1) for token in document]
    length = max(map(len, rows))
    packed = torch.tensor([row + [(0, 0)] * (length - len(row)) for row in rows])
    states = model(packed[..., 0], packed[..., 1].int(), torch.bfloat16, 0).states
    found = []
    for request, (one,), (row, begin) in zip(requests, answers, places, strict=True):
        first = begin + len(request.prompt) - 1
        given = states[row, first : first + len(one.tokens)]
        warmth = request.sampling.temperature or 1.0
        found.append(target_log_probs(given, model.head_weight, torch.tensor(one.tokens), warmth))
    return found


@pytest.mark.timeout(3600)
def test_no_bit_differs_from_training():
    draw, count, numbers, differing = random.Random(1), 0, 0, 0
    engines = {}
    for name, make in TRAINED.items():
        model = make().requires_grad_(False)
        model.absorb_latents(True)
        engines[name] = [
            Engine(model, (), torch.bfloat16, slots, step_tokens=step, exact=True)
            for slots, step in ((3, 50), (24, 2048))
        ]
    for number in range(-(-REQUESTS // BATCH)):
        engine = draw.choice(list(engines.values())[number % len(engines)])
        requests = random_requests(engine.model.config.vocab_size, draw)
        answers = engine.generate(requests)
        wanted = said_by_training(engine.model, requests, answers)
        for (one,), values in zip(answers, wanted, strict=True):
            differing += int((torch.tensor(one.log_probs) != values).sum())
            numbers += len(values)
        count += len(requests)
        engine.pool.forget()
    print(f"{count} requests, {numbers} log-probabilities compared, {differing} differ")
    assert count >= REQUESTS
    assert differing == 0
