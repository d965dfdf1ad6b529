"""Speculation changes how many steps a completion takes, never the completion."""

import math
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine.drafters import continued
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.speculation import Acceptance, Speculation, read_speculation
from clearseek.model.checkpoint import save_model
from clearseek.model.decoder import Decoder
from tests.engine.test_scheduling import requests_of
from tests.model.kernel_inputs import EVERY_EXPERT, lane_sized
from tests.model.tiny import CONFIGS, FAMILY_CONFIGS, some_tokens, tiny_model

LATENT = {"num_mtp_layers": 1, "num_dense_layers": 1}
# families whose modules are of another make: dense ones, with the model's last norm or with a window
OWN_MODULES = {
    "ernie": ("Ernie4_5_MoeForCausalLM 0", {}),
    "mimo_v2": ("MiMoV2FlashForCausalLM 0", {"rotary_head_dim": 16, "v_head_dim": 16, "sliding_window": 9}),
}
LONG = {"num_mtp_layers": 1, "max_position_embeddings": 1024}
KINDS = ("mtp", "ngram", "draft")


def model_of(name: str) -> Decoder:
    """One that the kernels know, or one that they don't, with a multi-token module where it is latent."""
    if name == "plain":
        return tiny_model(CONFIGS["deepseek_v3 mtp"]).requires_grad_(False)
    if name in OWN_MODULES:
        family, sizes = OWN_MODULES[name]
        # 80: no whole groups, so that guesses are not made in int4
        few = {"intermediate_size": 80, "moe_intermediate_size": 32} | LONG
        return lane_sized(family, **EVERY_EXPERT, **few, **sizes).requires_grad_(False)
    if name.startswith("plain "):
        config = FAMILY_CONFIGS[OWN_MODULES[name.removeprefix("plain ")][0]]
        return tiny_model(config.model_copy(update=LONG)).requires_grad_(False)
    changes = LATENT if "deepseek" in name else {}
    return lane_sized(name, max_position_embeddings=1024, **changes).requires_grad_(False)


def engine_of(model, kind=None, tokens=3, draft=None, **settings):
    if kind is None:
        return Engine(model, (), torch.float32, **settings)
    if kind == "draft" and draft is None:
        draft = lane_sized("llama", max_position_embeddings=1024, vocab_size=model.config.vocab_size)
    return Engine(model, (), torch.float32, speculation=Speculation(kind, tokens, draft), **settings)


def told(groups):
    return [
        (item.tokens, item.log_probs, item.entropy, item.finish_reason) for group in groups for item in group
    ]


SETTINGS = (
    {},
    {"temperature": 0.0},
    {"temperature": 0.7, "top_p": 0.8, "repetition_penalty": 1.3, "top_log_probs": 2},
)


@pytest.mark.parametrize(
    ("name", "kind"),
    [pair for pair in product(("qwen3", "deepseek_v3"), KINDS) if pair != ("qwen3", "mtp")]
    + [(name, "mtp") for name in OWN_MODULES],
)
@pytest.mark.parametrize("sampling", SETTINGS)
def test_on_kernels_completions_are_the_same_to_the_bit(name, kind, sampling):
    model = model_of(name)
    requests = requests_of(5, longest=150, **sampling)
    plain = told(engine_of(model).generate(requests))
    engine = engine_of(model, kind)
    assert engine.why_plain is None
    assert told(engine.generate(requests)) == plain
    engine.scheduler.check()
    assert engine.pool.num_free == engine.pool.num_blocks
    assert sum(engine.acceptance.guessed) > 0


@pytest.mark.parametrize(
    ("name", "kind"), [("plain", kind) for kind in KINDS] + [(f"plain {name}", "mtp") for name in OWN_MODULES]
)
def test_in_pytorch_completions_are_the_same(name, kind):
    model = model_of(name)
    prompts = some_tokens(model.config, 3, 20).tolist()
    requests = [Request(tuple(row), i, 2, Sampling(max_tokens=20)) for i, row in enumerate(prompts)]
    plain = engine_of(model).generate(requests)
    engine = engine_of(model, kind, draft=model if kind == "draft" else None)
    assert engine.why_plain is not None
    for ours, theirs in zip(engine.generate(requests), plain, strict=True):
        assert [one.tokens for one in ours] == [one.tokens for one in theirs]
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(one.log_probs, other.log_probs, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_pauses_change_nothing(kind, monkeypatch):
    """Little room, so that sequences are paused; all begin with the same words."""
    monkeypatch.setattr(Engine, "_most_blocks", lambda self: 9)
    model = model_of("deepseek_v3")
    shared = requests_of(1, longest=150)[0].prompt + tuple(range(90)) * 2
    requests = [Request(shared[: 70 + 11 * i], i, 2, Sampling(max_tokens=60)) for i in range(6)]
    engine = engine_of(model, kind)
    answers = {}
    for request in requests:
        engine.submit(request)
    while not engine.is_idle:
        answers |= {(answer.request.key, answer.sample): item for answer, item in engine.step()}
        engine.scheduler.check()
    assert engine.scheduler.num_paused > 0
    assert engine.pool.num_free == engine.pool.num_blocks
    for request in requests:
        found = [[answers[request.key, sample] for sample in range(2)]]
        assert told(found) == told(engine_of(model).generate([request]))


def reported(item):
    """All that a completion says."""
    routes = None if item.routed_experts is None else item.routed_experts.tolist()
    return (
        item.tokens, item.log_probs, item.alternatives, item.finish_reason,
        item.prompt_log_probs, item.prompt_alternatives, routes,
    )  # fmt: skip


REPORTS = {"prompt_log_probs": 2, "routed_experts": True, "top_log_probs": 1}


@pytest.mark.parametrize("kind", KINDS)
def test_reports_and_routes_are_the_same(kind, monkeypatch):
    """Of prompts read at once, in stretches, again after a pause, and shared; some ask for nothing."""
    monkeypatch.setattr(Engine, "_most_blocks", lambda self: 9)
    few = {"num_experts_per_token": 2, "num_expert_groups": 4, "num_limited_groups": 2}
    model = lane_sized("deepseek_v3", max_position_embeddings=1024, **LATENT, **few).requires_grad_(False)
    shared = tuple(some_tokens(model.config, 1, 150)[0].tolist())
    requests = [
        Request(shared[: 60 + 13 * i], i, 2, Sampling(max_tokens=40, **(REPORTS if i % 3 else {})))
        for i in range(6)
    ]
    engine, answers = engine_of(model, kind, step_tokens=50), {}
    for request in requests:
        engine.submit(request)
    while not engine.is_idle:
        answers |= {(answer.request.key, answer.sample): item for answer, item in engine.step()}
        engine.scheduler.check()
    assert engine.scheduler.num_paused > 0
    assert sum(engine.acceptance.guessed) > 0
    for request in requests:
        alone = engine_of(model).generate([request])[0]
        found = [answers[request.key, sample] for sample in range(2)]
        assert list(map(reported, found)) == list(map(reported, alone))
        assert (found[0].routed_experts is not None) == bool(request.key % 3)


@pytest.mark.parametrize("kind", KINDS)
def test_new_weights_are_guessed_with_as_well(kind):
    model = model_of("deepseek_v3")
    engine = engine_of(model, kind)
    requests = requests_of(3, longest=100)
    for request in requests:
        engine.submit(request)
    for _ in range(4):
        engine.step()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    engine.load_weights(model)
    while not engine.is_idle:
        engine.step()
    assert told(engine.generate(requests)) == told(engine_of(model).generate(requests))


@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3", "plain"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_draft_that_is_the_model_itself_is_always_right(name, temperature):
    """So whatever it keeps of what was accepted and rejected is right: prompts, groups, guesses that ran too far."""
    model = model_of(name)
    draft = tiny_model(CONFIGS["deepseek_v3 mtp"]) if name == "plain" else model_of(name)
    engine = engine_of(model, "draft", draft=draft)
    requests = [
        Request(tuple(row), i, 3, Sampling(temperature=temperature, max_tokens=41))
        for i, row in enumerate(some_tokens(model.config, 3, 20).tolist())
    ]
    steps = []
    monitored = engine.step
    engine.step = lambda on_token=None: steps.append(1) or monitored(on_token)  # type: ignore[method-assign]
    engine.generate(requests)
    assert engine.acceptance.rates == [1.0, 1.0, 1.0]
    assert len(steps) <= 3 + math.ceil(41 / 4)


@pytest.mark.parametrize("kind", [{}, {"top_log_probs": 1}])
def test_every_guess_of_a_module_may_come_true(kind):
    """Such as those of a module that always says one word, as the model does."""
    model = model_of("deepseek_v3")
    with torch.no_grad():
        model.embedding.weight.zero_()
    engine = engine_of(model, "mtp", 3)
    (group,) = engine.generate([Request((1, 2, 3), 0, 2, Sampling(temperature=0, max_tokens=41, **kind))])
    assert [len(item.tokens) for item in group] == [41, 41]
    assert engine.acceptance.rates == [1.0, 1.0, 1.0]
    assert sum(engine.acceptance.guessed) >= 2 * (40 - 11)


@pytest.mark.parametrize(
    "name", ["deepseek_v3", "plain", *OWN_MODULES, *(f"plain {name}" for name in OWN_MODULES)]
)
def test_the_model_s_own_guesses_are_those_of_a_full_pass(name):
    """The first guess is what the multi-token module of a whole forward pass finds likeliest, at every step."""
    model = model_of(name)
    engine = engine_of(model, "mtp", 1)
    prompt = some_tokens(model.config, 1, 30)[0].tolist()
    engine.submit(Request(tuple(prompt), 0, 1, Sampling(temperature=0, max_tokens=40)))
    proposed, guessing = [], engine.drafter.guessing
    while not engine.is_idle:
        engine.step(lambda *_: None)
        for slot in np.flatnonzero(engine.slots.active & (guessing.where == engine.slots.position)):
            proposed.append((engine.slots.known(slot).tolist(), guessing.first[slot]))
    assert len(proposed) > 10
    for tokens, guess in proposed:
        row = torch.tensor([tokens])
        with torch.no_grad():
            states = model(row, torch.ones_like(row), torch.float32, 1).predicted_states[0]
        scores = model.logits(states)[0, -2]
        assert scores[guess] >= scores.max() - 1e-4


def test_guesses_are_made_in_int4_where_it_fits():
    """Rounded, so some are others than a full pass finds; completions are still the same."""
    model = lane_sized("deepseek_v3", **LATENT, kv_lora_rank=64, qk_nope_head_dim=32).requires_grad_(False)
    engine = engine_of(model, "mtp", 2)
    requests = requests_of(3, longest=60)
    assert told(engine.generate(requests)) == told(engine_of(model).generate(requests))
    assert engine.runner.layout.of_module(model).form.name == "int4"


def test_what_is_drawn_is_distributed_as_the_model_says():
    """Chi-square over pairs of tokens, with guesses of a model that is often wrong and sometimes right."""
    model, draft = (lane_sized("qwen3", tie_word_embeddings=False).requires_grad_(False) for _ in range(2))
    model.norm.weight.mul_(15)
    draft.norm.weight.mul_(9)
    engine = engine_of(model, "draft", 2, draft)
    prompt, count = (5, 6, 7), 4000
    (group,) = engine.generate([Request(prompt, 3, count, Sampling(max_tokens=3))])
    assert 0.1 < engine.acceptance.rates[0] < 0.95
    counts = Counter(tuple(item.tokens[:2]) for item in group)
    statistic, cells = 0.0, 0
    for pair, probability in pairs(model, prompt).items():
        if probability * count >= 5:
            statistic += (counts[pair] - probability * count) ** 2 / (probability * count)
            cells += 1
    assert cells > 20
    assert statistic < cells + 4 * math.sqrt(2 * cells)


@torch.no_grad()
def pairs(model, prompt):
    """The probability of every pair of tokens after `prompt`."""
    row = torch.tensor([prompt])
    first = model.logits(model(row, torch.ones_like(row), torch.float32, 0).states)[0, -1].softmax(-1)
    likely = first.topk(12).indices.tolist()
    rows = torch.tensor([[*prompt, token] for token in likely])
    second = model.logits(model(rows, torch.ones_like(rows), torch.float32, 0).states)[:, -1].softmax(-1)
    return {
        (token, after): float(first[token] * second[i, after])
        for i, token in enumerate(likely)
        for after in range(model.config.vocab_size)
    }


def test_words_that_came_before_are_continued():
    assert continued(np.array([1, 2, 3, 9, 1, 2, 3]), 3) == [9, 1, 2]
    assert continued(np.array([7, 2, 8, 1, 2, 5, 1, 2]), 1) == [5]
    assert continued(np.array([4, 4, 4]), 2) == [4, 4]
    assert continued(np.array([1, 2, 3]), 2) == []
    assert continued(np.array([1]), 2) == []


def test_a_text_that_repeats_itself_takes_fewer_steps():
    model = model_of("qwen3")
    engine = engine_of(model, "ngram", 4)
    with torch.no_grad():
        model.embedding.weight.zero_()  # it says one word for ever
    steps = 0
    engine.submit(Request((1, 2, 3), 0, 1, Sampling(temperature=0, max_tokens=50)))
    while not engine.is_idle:
        engine.step()
        steps += 1
    assert steps < 14


def test_a_budget_and_an_end_are_kept():
    model = model_of("qwen3")
    engine = Engine(
        model, tuple(range(40)), torch.float32, speculation=Speculation("draft", 3, model_of("qwen3"))
    )
    plain = Engine(model, tuple(range(40)), torch.float32)
    requests = [Request((i + 1,), i, 4, Sampling(max_tokens=1 + i)) for i in range(6)]
    assert told(engine.generate(requests)) == told(plain.generate(requests))


@pytest.mark.parametrize(
    ("speculation", "message"),
    [
        (Speculation("mtp"), "no multi-token module"),
        (Speculation("ngram", 0), "1 to 16 tokens"),
        (Speculation("ngram", 17), "1 to 16 tokens"),
        (Speculation("draft"), "needs one"),
        (Speculation("guessing"), "not by guessing"),
    ],
)
def test_what_can_t_be_speculated_with_is_refused(speculation, message):
    with pytest.raises(InputError, match=message):
        Engine(model_of("qwen3"), (), torch.float32, speculation=speculation)


def test_a_draft_of_another_vocabulary_is_refused():
    draft = lane_sized("qwen3", vocab_size=96)
    with pytest.raises(InputError, match="96 tokens"):
        engine_of(model_of("qwen3"), "draft", draft=draft)


def test_how_to_speculate_is_read_from_text(tmp_path):
    assert read_speculation("mtp") == Speculation("mtp", 2)
    assert read_speculation("ngram:5") == Speculation("ngram", 5)
    save_model(model_of("qwen3"), tmp_path / "draft", bos_id=0, eos_id=1, pad_id=2)
    for text, count in ((f"{tmp_path / 'draft'}:3", 3), (str(tmp_path / "draft"), 2)):
        found = read_speculation(text)
        assert (found.kind, found.num_tokens) == ("draft", count)
        assert found.draft is not None
        assert found.draft.config.hidden_size == 64
    for wrong in ("", "mtp:", "mtp:x", "nothing/there", ":3"):
        with pytest.raises(InputError, match=r"no way to speculate"):
            read_speculation(wrong)


def test_acceptance_is_told_by_place():
    acceptance = Acceptance()
    for guessed, accepted in ((3, 3), (3, 1), (1, 0)):
        acceptance.note(guessed, accepted)
    assert acceptance.guessed == [3, 2, 2]
    assert acceptance.rates == [2 / 3, 1 / 2, 1 / 2]
