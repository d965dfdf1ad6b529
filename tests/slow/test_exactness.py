"""10,000 requests of random shape, alone and in random batches, read whole or in steps, with the cache and without.

What an answer is must not depend on any of it: no bit of a token, of a log-probability, of an entropy. And as many
again beside the trainer's forward pass over packed rows: no bit of a log-probability.
"""

import random

import numpy as np
import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format
from clearseek.engine.request import Completion, Request, Sampling
from clearseek.model.kernels import library
from clearseek.model.log_probs import target_log_probs
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import some_tokens

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
FORMATS = ("float32", "bfloat16", "int8", "int4")
TOTAL, BATCH = 10_000, 24


def requests_of(model, draw: random.Random, number: int) -> list[Request]:
    """Some begin alike, so that they find each other in the cache; three of four are drawn, one takes the likeliest."""
    shared = some_tokens(model.config, 1, 130, number)[0].tolist()
    requests = []
    for key in range(BATCH):
        own = some_tokens(model.config, 1, draw.randint(1, 60), 1000 * number + key)[0].tolist()
        prompt = tuple(shared[: draw.choice((0, 0, 64, 130))] + own)
        sampling = Sampling(draw.choice((0, 0.6, 1.0, 1.0)), max_tokens=draw.randint(1, 16))
        requests.append(Request(prompt, key, 1, sampling))
    return requests


def bits_of(groups: list[list[Completion]]) -> np.ndarray:
    """All that was computed, as whole numbers."""
    found = [completion for group in groups for completion in group]
    tokens = [token for completion in found for token in completion.tokens]
    numbers = [value for completion in found for value in completion.log_probs]
    means = [completion.entropy for completion in found]
    exact = np.array([*numbers, *means], np.float64).view(np.int64)
    return np.concatenate((np.array(tokens, np.int64), exact))


@pytest.mark.timeout(3600)
def test_no_bit_depends_on_what_is_computed_beside_it():
    draw, count, numbers, differing = random.Random(0), 0, 0, 0
    engines = {}
    for name in SHAPES:
        for form in FORMATS:
            model = SHAPES[name]().requires_grad_(False)
            dtype = torch.float32 if form == "float32" else torch.bfloat16
            engines[name, form] = [
                Engine(model, (), dtype, slots, form=Format(form), step_tokens=step)
                for slots, step in ((1, 512), (3, 50), (24, 7), (24, 2048))
            ]
    for number in range(-(-TOTAL // BATCH)):
        (name, form), (single, *batched) = list(engines.items())[number % len(engines)]
        requests = requests_of(single.model, draw, number)
        alone = []
        for request in requests:
            alone += single.generate([request])
            single.pool.forget()
        wanted = bits_of(alone)
        engine = draw.choice(batched)
        for hits in False, True:
            order = draw.sample(range(BATCH), BATCH)
            known = engine.pool.hits if hits else 0
            found = dict(zip(order, engine.generate([requests[i] for i in order]), strict=True))
            differing += int((bits_of([found[i] for i in range(BATCH)]) != wanted).sum())
            assert not hits or engine.pool.hits > known, f"{name} in {form}: nothing was found"
        engine.pool.forget()
        count, numbers = count + BATCH, numbers + 2 * len(wanted)
    print(f"{count} requests, {numbers} numbers compared, {differing} differ")
    assert count >= TOTAL
    assert differing == 0


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
            Engine(model, (), torch.bfloat16, slots, step_tokens=step)
            for slots, step in ((3, 50), (24, 2048))
        ]
    for number in range(-(-TOTAL // BATCH)):
        engine = draw.choice(list(engines.values())[number % len(engines)])
        requests = requests_of(engine.model, draw, number)
        answers = engine.generate(requests)
        wanted = said_by_training(engine.model, requests, answers)
        for (one,), values in zip(answers, wanted, strict=True):
            differing += int((torch.tensor(one.log_probs) != values).sum())
            numbers += len(values)
        count += len(requests)
        engine.pool.forget()
    print(f"{count} requests, {numbers} log-probabilities compared, {differing} differ")
    assert count >= TOTAL
    assert differing == 0
