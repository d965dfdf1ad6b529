"""Generation against the plain forward pass: same numbers, whatever the batch, the slots and the order."""

from itertools import product

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.streams import uniforms
from clearseek.model.log_probs import log_probs_from_logits
from tests.model.tiny import CONFIGS, FAMILY_CONFIGS, some_tokens, tiny_model

FAMILIES = [
    "deepseek_v3",
    "deepseek_v3 mtp",
    "deepseek_v3 many experts",
    "deepseek_v3 yarn",
    "qwen3",
    "llama",
]
NEVER = ()  # no token ends a completion


def engine_of(name="deepseek_v3", stop_ids=NEVER, num_slots=256, dtype=torch.float32):
    return Engine(tiny_model((CONFIGS | FAMILY_CONFIGS)[name]), stop_ids, dtype, num_slots)


def requests_of(config, lengths=(3, 7, 1, 5), samples=3, **sampling):
    """One request per prompt length, each with its own key and a budget of its own."""
    prompts = some_tokens(config, len(lengths), max(lengths)).tolist()
    return [
        Request(tuple(prompt[:length]), 100 + i, samples, Sampling(**{"max_tokens": 6 + i} | sampling))
        for i, (prompt, length) in enumerate(zip(prompts, lengths, strict=True))
    ]


def full_log_probs(engine, tokens, temperature):
    """Log-probabilities at every position of one row by a full pass, [T, V]."""
    row = torch.tensor([tokens])
    with torch.no_grad():
        states = engine.model(row, torch.ones_like(row), engine.dtype, 0).states
        return log_probs_from_logits(engine.model.logits(states), temperature)[0]


@pytest.mark.parametrize(
    ("name", "temperature"), [*product(FAMILIES, (1.0, 0.7)), *product(FAMILY_CONFIGS, [1.0])]
)
def test_log_probs_are_those_of_a_full_pass(name, temperature):
    """T5: what the sampler says of a token is what the trainer computes for it, to 1e-5 in fp32."""
    engine = engine_of(name)
    requests = requests_of(engine.model.config, temperature=temperature)
    for request, group in zip(requests, engine.generate(requests), strict=True):
        for completion in group:
            tokens = [*request.prompt, *completion.tokens]
            expected = full_log_probs(engine, tokens, temperature)[len(request.prompt) - 1 : -1]
            found = expected.gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(completion.log_probs), found, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FAMILY_CONFIGS if name.endswith(" 0")])
def test_the_sampler_in_bf16_agrees_with_the_trainer_s_weights_in_fp32(name):
    """The trainer casts fp32 weights as it goes, the sampler holds rounded ones: both mean the same."""
    model = tiny_model(FAMILY_CONFIGS[name], std=0.08)
    (request,) = requests_of(model.config, lengths=(7,), samples=8, max_tokens=12)
    differences = []
    for completion in Engine(model, NEVER, torch.bfloat16).generate([request])[0]:
        row = torch.tensor([[*request.prompt, *completion.tokens]])
        with torch.no_grad():
            logits = model.logits(model(row, torch.ones_like(row), torch.bfloat16, 0).states)
        scores = log_probs_from_logits(logits, 1.0)[0, 6:-1]
        found = scores.gather(1, torch.tensor(completion.tokens)[:, None])[:, 0]
        differences.append((found - torch.tensor(completion.log_probs)).abs())
    assert torch.cat(differences).mean() < 0.02


def test_truncated_sampling_reports_untruncated_log_probs():
    """T5 with top_p: what is drawn is truncated, its log-probability is not."""
    engine = engine_of()
    requests = requests_of(engine.model.config, top_p=0.5)
    for request, group in zip(requests, engine.generate(requests), strict=True):
        for completion in group:
            expected = full_log_probs(engine, [*request.prompt, *completion.tokens], 1.0)
            for position, token in enumerate(completion.tokens, len(request.prompt) - 1):
                log_prob = completion.log_probs[position - len(request.prompt) + 1]
                assert expected[position, token].item() == pytest.approx(log_prob, abs=1e-5)


def test_tokens_are_drawn_by_the_stream_of_their_sample():
    """Inverse sampling by hand from full passes gives the same tokens."""
    engine = engine_of("qwen3")
    (request,) = requests_of(engine.model.config, lengths=(4,), samples=2)
    (group,) = engine.generate([request])
    for number, completion in enumerate(group):
        tokens = list(request.prompt)
        for drawn in uniforms(request.key, number, request.sampling.max_tokens):
            cumulative = full_log_probs(engine, tokens, 1.0)[-1].exp().cumsum(0)
            tokens.append(int((cumulative <= float(drawn) * cumulative[-1]).sum()))
        assert tokens[len(request.prompt) :] == completion.tokens


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_v3 many experts", "qwen3"])
def test_samples_do_not_depend_on_the_batch(name):
    """T12: alone, together, in any order, with few slots or many, the same tokens."""
    requests = requests_of(CONFIGS[name], lengths=(3, 7, 1, 5, 2, 9), samples=4)
    expected = engine_of(name).generate(requests)
    for num_slots in (1, 3, 4, 7):
        found = engine_of(name, num_slots=num_slots).generate(requests)
        assert_same(found, expected)
    engine = engine_of(name)
    assert_same([engine.generate([request])[0] for request in requests], expected)
    assert_same(engine.generate(requests[::-1])[::-1], expected)
    fewer = [Request(r.prompt, r.key, 2, r.sampling) for r in requests]
    assert_same(engine.generate(fewer), [group[:2] for group in expected])


def assert_same(found, expected):
    for some, others in zip(found, expected, strict=True):
        for one, other in zip(some, others, strict=True):
            assert one.tokens == other.tokens
            assert one.finish_reason == other.finish_reason
            assert one.log_probs == pytest.approx(other.log_probs, abs=1e-5)


def test_a_shorter_budget_gives_the_beginning_of_the_longer_one():
    engine = engine_of()
    (long,) = engine.generate(requests_of(engine.model.config, lengths=(4,), max_tokens=12))
    (short,) = engine.generate(requests_of(engine.model.config, lengths=(4,), max_tokens=5))
    assert [c.tokens for c in short] == [c.tokens[:5] for c in long]


@pytest.mark.parametrize("places", [(7,), (7, 11, 2)])
def test_every_end_ends_a_sample_and_belongs_to_it(places):
    """T19: the drawn end is a token like others; what ran out of budget never counts as finished."""
    requests = requests_of(CONFIGS["qwen3"], lengths=(3, 5), samples=16, max_tokens=20)
    free = engine_of("qwen3").generate(requests)
    ends = {free[0][0].tokens[place] for place in places}
    reasons = set()
    for some, others in zip(engine_of("qwen3", ends, num_slots=5).generate(requests), free, strict=True):
        for found, without in zip(some, others, strict=True):
            end = next((i + 1 for i, token in enumerate(without.tokens) if token in ends), None)
            assert found.tokens == without.tokens[:end]
            assert found.finish_reason == ("length" if end is None else "stop")
            assert len(found.log_probs) == len(found.tokens)
            reasons.add(found.finish_reason)
    assert reasons == {"stop", "length"}


def test_the_end_as_the_last_token_of_the_budget_is_an_end():
    requests = requests_of(CONFIGS["qwen3"], lengths=(3,), samples=1, max_tokens=4)
    eos = engine_of("qwen3").generate(requests)[0][0].tokens[3]
    (completion,) = engine_of("qwen3", [eos]).generate(requests)[0]
    assert completion.tokens[-1] == eos
    assert completion.finish_reason == "stop"


def test_entropy_is_the_mean_over_the_tokens():
    engine = engine_of()
    (request,) = requests_of(engine.model.config, lengths=(3,), samples=1)
    (completion,) = engine.generate([request])[0]
    log_probs = full_log_probs(engine, [*request.prompt, *completion.tokens], 1.0)[2:-1]
    expected = -(log_probs.exp() * log_probs).sum(-1).mean()
    assert completion.entropy == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_the_model_s_after_loading(dtype):
    """T17: every tensor, routers and selection biases included; a new version number marks what follows."""
    engine = engine_of(dtype=dtype)
    (request,) = requests_of(engine.model.config, lengths=(3,), samples=1)
    before = engine.generate([request])[0][0]
    changed = tiny_model(CONFIGS["deepseek_v3"], seed=9)
    engine.load_weights(changed)
    ours, theirs = engine.model.state_dict(), changed.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name].to(tensor.dtype)), name
    after = engine.generate([request])[0][0]
    fresh = Engine(changed, NEVER, dtype).generate([request])[0][0]
    assert after.tokens == fresh.tokens != before.tokens
    assert (before.weights_version, after.weights_version) == (0, 1)


def test_training_goes_on_without_the_engine_noticing():
    model = tiny_model(CONFIGS["qwen3"])
    engine = Engine(model, NEVER, torch.float32)
    requests = requests_of(model.config)
    before = engine.generate(requests)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    assert_same(engine.generate(requests), before)
    assert not any(parameter.requires_grad for parameter in engine.model.parameters())


def test_every_token_is_announced_as_it_is_drawn():
    engine = engine_of(num_slots=4)
    requests = requests_of(engine.model.config)
    heard: dict[tuple[int, int], list[int]] = {}
    groups = engine.generate(requests, lambda r, s, token: heard.setdefault((r, s), []).append(token))
    assert heard == {(r, s): c.tokens for r, group in enumerate(groups) for s, c in enumerate(group)}


def test_nothing_asked_is_nothing_done():
    assert engine_of().generate([]) == []


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([Request((), 0)], "at least one token"),
        ([Request((1,) * 60, 0, 1, Sampling(max_tokens=9))], "context of 64 tokens"),
    ],
)
def test_impossible_requests_are_refused_before_anything_runs(requests, message):
    with pytest.raises(InputError, match=message):
        engine_of("deepseek_v3 yarn").generate(requests)
