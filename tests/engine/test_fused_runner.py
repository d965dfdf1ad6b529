"""The kernels' step against the plain forward pass: every format, every kernel's shape, every way to cut a batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clearseek.engine.blocks import BLOCK_TOKENS
from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.layout import Layout, why_plain
from clearseek.engine.plain_runner import PlainRunner
from clearseek.engine.request import Request, Sampling
from clearseek.engine.runner import Batch
from clearseek.engine.slots import Slots
from clearseek.model.decoder import Decoder
from clearseek.model.kernels import library
from tests.model.gguf_models import family_config
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import some_tokens

pytestmark = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")

WINDOWS = ("sliding_attention", "full_attention", "sliding_attention")
SHAPES = {
    "qwen3": {},
    "llama": {},
    "llama with a window": {
        "sliding_window": 40,
        "layer_types": ("sliding_attention", "full_attention", "sliding_attention"),
    },
    "deepseek_v3": {"num_dense_layers": 1},
    "deepseek_v3 without query latent": {"num_dense_layers": 1},
    "deepseek_v3 yarn": {"num_dense_layers": 1},
}
WHOLE_GROUPS = {"kv_lora_rank": 64, "qk_nope_head_dim": 32}  # what quantised weights need
LENGTH = 150
TABLES = np.array([[3, 1, 6, 0], [2, 7, 5, 4]], np.int32)


def model_of(name: str) -> Decoder:
    changes = SHAPES[name] | (WHOLE_GROUPS if "deepseek" in name else {})
    model = lane_sized(name.split(" with a")[0], max_position_embeddings=512, **changes)
    return model.requires_grad_(False).eval()


def rows_of(tokens: torch.Tensor, *stretches: tuple[int, int, int]) -> Batch:
    """Stretches (slot, first, last) of rows [B, T], all of whose scores are wanted."""
    slots = np.concatenate([np.full(last - first, slot) for slot, first, last in stretches])
    positions = np.concatenate([np.arange(first, last) for _, first, last in stretches])
    chosen = tokens.numpy()[slots, positions]
    return Batch(chosen, positions, slots, TABLES, np.arange(len(slots)))


def whole(model: Decoder, tokens: torch.Tensor) -> torch.Tensor:
    return model.logits(model(tokens, torch.ones_like(tokens), torch.float32, 0).states)


@pytest.mark.parametrize("name", SHAPES)
def test_in_fp32_a_step_is_the_forward_pass(name):
    model = model_of(name)
    assert why_plain(model, Format("float32")) is None
    tokens = some_tokens(model.config, 2, LENGTH)
    runner = FusedRunner(Layout(model, Format("float32")), 8)
    scores = runner.step(rows_of(tokens, (0, 0, LENGTH), (1, 0, LENGTH)))
    found, wanted = scores.view(2, LENGTH, -1).log_softmax(-1), whole(model, tokens).log_softmax(-1)
    assert (found - wanted).abs().max() < 1e-5


GPT_OSS = {
    "hidden_size": 64, "head_dim": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 96,
    "swiglu_limit": 0.5, "sliding_window": 40, "max_position_embeddings": 512,
}  # fmt: skip
RARER = {
    "norms on what layers add": ("qwen3", {"sandwich_norm": True}),
    "the same, latent and routed": (
        "deepseek_v3",
        WHOLE_GROUPS | {"sandwich_norm": True, "num_dense_layers": 1},
    ),
    "the same without shared experts": (
        "deepseek_v3",
        WHOLE_GROUPS | {"sandwich_norm": True, "num_dense_layers": 1, "num_shared_experts": 0},
    ),
    "biases": ("qwen3", {"mlp_bias": True, "qkv_bias": True, "out_bias": True}),
    "biases beside experts": ("deepseek_v3", WHOLE_GROUPS | {"mlp_bias": True, "num_dense_layers": 1}),
    "gpt-oss": ("gpt-oss", GPT_OSS),
    "gated shared experts": ("deepseek_v3", WHOLE_GROUPS | {"has_shared_gate": True, "num_dense_layers": 1}),
}


def rarer(name: str) -> Decoder:
    """With biases, norms and sinks that say something."""
    base, changes = RARER[name]
    generator = torch.Generator().manual_seed(1)
    if base == "gpt-oss":
        model = Decoder(family_config("GptOssForCausalLM", 0, **changes))
        model.initialise(generator)
    else:
        model = lane_sized(base, max_position_embeddings=512, **changes)
    model.requires_grad_(False).eval()
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1 or key.endswith("bias"):
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
        elif "shared_gate" in key:
            parameter.normal_(0, 0.5, generator=generator)
        elif "feed_forward" in key:
            parameter.mul_(8)  # so that a layer's two halves are of a size
    return model


@pytest.mark.parametrize("name", RARER)
def test_rarer_parts_are_the_forward_pass_s(name):
    model = rarer(name)
    assert why_plain(model, Format("float32")) is None
    tokens = some_tokens(model.config, 2, LENGTH)
    layout = Layout(model, Format("float32"))
    scores = FusedRunner(layout, 8).step(rows_of(tokens, (0, 0, LENGTH), (1, 0, LENGTH)))
    found, wanted = scores.view(2, LENGTH, -1).log_softmax(-1), whole(model, tokens).log_softmax(-1)
    assert (found - wanted).abs().max() < 1e-4
    runner = FusedRunner(layout, 8)  # a row at a time takes other ways
    runner.step(rows_of(tokens, (0, 0, LENGTH - 2)))
    for place in (LENGTH - 2, LENGTH - 1):
        assert torch.equal(runner.step(rows_of(tokens, (0, place, place + 1)))[0], scores[place])


@pytest.mark.parametrize(("form", "allowed"), [("bfloat16", 0.03), ("int8", 0.05)])
@pytest.mark.parametrize("name", ["norms on what layers add", "biases", "gpt-oss"])
def test_rarer_parts_in_other_formats(name, form, allowed):
    """As near as their rounding; where experts are chosen, all but the rows in which a near tie decides otherwise."""
    model = rarer(name)
    tokens = some_tokens(model.config, 2, LENGTH)
    runner = FusedRunner(Layout(model, Format(form)), 8)
    found = runner.step(rows_of(tokens, (0, 0, LENGTH), (1, 0, LENGTH))).view(2, LENGTH, -1)
    wanted = whole(model, tokens)
    assert ((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).median() < allowed


@pytest.mark.parametrize("form", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("name", ["qwen3", "llama with a window", "deepseek_v3"])
@pytest.mark.parametrize("num_threads", [1, 2])
def test_however_a_prompt_is_cut_every_bit_is_the_same(name, form, num_threads):
    """Alone, beside another, in stretches that begin and end anywhere, by one thread or two."""
    model = model_of(name)
    tokens = some_tokens(model.config, 2, LENGTH)
    layout = Layout(model, Format(form))
    wanted = FusedRunner(layout, 8).step(rows_of(tokens, (0, 0, LENGTH), (1, 0, LENGTH))).view(2, LENGTH, -1)
    torch.set_num_threads(num_threads)
    runner, parts = FusedRunner(layout, 8), ([], [])
    cuts = [
        ((0, 70), (0, 33)),
        ((70, 71), (33, 98)),
        *(((t, t + 1), (27 + t, 28 + t)) for t in range(71, 123)),
    ]
    for first, second in [*cuts, ((123, 150), None)]:
        stretches = [(0, *first)] + ([(1, *second)] if second else [])
        scores = runner.step(rows_of(tokens, *stretches))
        parts[0].append(scores[: first[1] - first[0]])
        parts[1].append(scores[first[1] - first[0] :])
    torch.set_num_threads(1)
    assert torch.equal(torch.cat(parts[0]), wanted[0])
    assert torch.equal(torch.cat(parts[1]), wanted[1])


@pytest.mark.parametrize("form", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("name", ["qwen3", "llama with a window", "deepseek_v3"])
@pytest.mark.parametrize(
    ("num_threads", "small"), [(1, 0), (2, 1 << 30), (2, 0)], ids=["one", "teams", "a team"]
)
def test_what_nobody_asks_for_is_left_out_and_no_bit_changes(name, form, num_threads, small, monkeypatch):
    """The last layer goes by wanted rows where they are few; later tokens see the keys of the others all the same."""
    model = model_of(name)
    tokens = some_tokens(model.config, 2, LENGTH)
    layout = Layout(model, Format(form))
    all_rows = (
        FusedRunner(layout, 8).step(rows_of(tokens, (0, 0, LENGTH), (1, 0, LENGTH))).view(2, LENGTH, -1)
    )
    monkeypatch.setattr("clearseek.engine.fused_runner._SMALL_BYTES", small)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    for some in ([], [69], [102], [0, 69, 70, 101], list(range(3, 50)), list(range(2, 100))):
        runner = FusedRunner(layout, 8)
        scores = runner.step(
            replace(rows_of(tokens, (0, 0, 70), (1, 0, 33)), wanted=np.array(some, np.int64))
        )
        assert torch.equal(scores, torch.cat([all_rows[0, :70], all_rows[1, :33]])[some])
        rest = rows_of(tokens, (0, 70, LENGTH), (1, 33, LENGTH))
        scores = runner.step(replace(rest, wanted=np.array([79, 196], np.int64)))
        assert torch.equal(scores, torch.stack([all_rows[0, -1], all_rows[1, -1]]))


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("name", ["deepseek_v3 without query latent", "deepseek_v3"])
def test_a_module_guesses_the_same_where_few_guesses_are_wanted(name, num_threads, monkeypatch):
    model = lane_sized(name, num_mtp_layers=1, **SHAPES[name])
    model.requires_grad_(False).eval()
    tokens = some_tokens(model.config, 2, LENGTH)
    batch = rows_of(tokens, (0, 0, 70), (1, 0, 33))
    states = torch.randn(len(batch.tokens), model.config.hidden_size)
    monkeypatch.setattr("clearseek.engine.fused_runner._SMALL_BYTES", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    runner = FusedRunner(Layout(model, Format("bfloat16")), 8, predicts=True)
    scores, further = runner.predict(batch, states)
    some = np.array([69, 102], np.int64)
    few_scores, few = runner.predict(replace(batch, wanted=some), states)
    assert torch.equal(few_scores, scores[some])
    assert torch.equal(few[some], further[some])


@pytest.mark.parametrize("name", ["gpt-oss", "biases"])
def test_a_token_alone_has_the_bits_that_it_has_within_its_prompt(name):
    """With sinks and a window, or without: tokens that go alone are attended for in a function of their own."""
    model = rarer(name)
    tokens = some_tokens(model.config, 2, LENGTH)
    layout = Layout(model, Format("bfloat16"))
    runner, whole_prompts = FusedRunner(layout, 8), rows_of(tokens, (0, 0, LENGTH), (1, 0, LENGTH))
    wanted = FusedRunner(layout, 8).step(whole_prompts).view(2, LENGTH, -1)
    for t in range(LENGTH):
        assert torch.equal(runner.step(rows_of(tokens, (0, t, t + 1), (1, t, t + 1))), wanted[:, t])


@pytest.mark.parametrize(("form", "allowed"), [("bfloat16", 0.02), ("int8", 0.03), ("int4", 0.4)])
@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3 without query latent"])
def test_formats_are_as_near_as_their_rounding(name, form, allowed):
    """The scores' error relative to their size; routed layers are left out, where a near tie decides otherwise."""
    changes = WHOLE_GROUPS | {"num_routed_experts": 0} if "deepseek" in name else {}
    model = lane_sized(name, max_position_embeddings=512, **changes).requires_grad_(False)
    tokens = some_tokens(model.config, 2, LENGTH)
    runner = FusedRunner(Layout(model, Format(form)), 8)
    found = runner.step(rows_of(tokens, (0, 0, LENGTH), (1, 0, LENGTH))).view(2, LENGTH, -1)
    wanted = whole(model, tokens)
    assert (found - wanted).norm() / wanted.norm() < allowed


@pytest.mark.parametrize("name", ["qwen3", "llama with a window", "deepseek_v3"])
def test_the_plain_runner_says_the_same(name):
    """In fp32, from prompts read at once or in stretches, and of copied blocks."""
    model = model_of(name)
    tokens = some_tokens(model.config, 2, LENGTH)
    wanted = whole(model, tokens).log_softmax(-1)
    runner = PlainRunner(model, torch.float32, 8)
    batch = rows_of(tokens, (0, 0, 80), (1, 0, 1))
    last = Batch(batch.tokens, batch.positions, batch.slots, TABLES, np.array([79, 80]))
    found = runner.step(last).log_softmax(-1)
    assert (found - torch.stack((wanted[0, 79], wanted[1, 0]))).abs().max() < 1e-4
    found = runner.step(rows_of(tokens, (0, 80, LENGTH), (1, 1, 40))).log_softmax(-1)
    assert (found - torch.cat((wanted[0, 80:], wanted[1, 1:40]))).abs().max() < 1e-4


def test_a_copied_block_knows_what_the_other_does():
    model = model_of("qwen3")
    tokens = some_tokens(model.config, 2, LENGTH)
    tokens[1] = tokens[0]
    for runner in FusedRunner(Layout(model, Format("bfloat16")), 8), PlainRunner(model, torch.float32, 8):
        first = runner.step(rows_of(tokens, (0, 0, BLOCK_TOKENS), (0, BLOCK_TOKENS, BLOCK_TOKENS + 3)))[-1]
        runner.copy_block(TABLES[0, 0], TABLES[1, 0])
        runner.copy_block(TABLES[0, 1], TABLES[1, 1])
        again = runner.step(rows_of(tokens, (1, BLOCK_TOKENS + 2, BLOCK_TOKENS + 3)))[-1]
        torch.testing.assert_close(again, first, rtol=1e-4, atol=1e-4)


def test_what_the_kernels_do_not_know_is_named():
    model = lane_sized("qwen3")
    assert "group of 128" in str(why_plain(model, Format("int8", 128)))
    gated = lane_sized("deepseek_v3", has_shared_gate=True, mlp_bias=True)
    assert "a gate on shared experts with biases" in str(why_plain(gated, Format("bfloat16")))


@pytest.mark.parametrize("name", RARER)
def test_rarer_parts_answer_as_pytorch_does(name, monkeypatch):
    """Whole answers through the engine, with kernels and without; tokens and log-probabilities."""
    model = rarer(name)
    requests = [
        Request(tuple(range(3, 40)), 0, 2, Sampling(max_tokens=24)),
        Request((7, 8, 9), 1, 1, Sampling(max_tokens=40, temperature=0)),
    ]
    found = Engine(model, (), torch.float32)
    assert found.why_plain is None
    answers = found.generate(requests)
    for module in ("engine", "runners"):
        monkeypatch.setattr(f"clearseek.engine.{module}.why_plain", lambda *_: "told so")
    others = Engine(model, (), torch.float32).generate(requests)
    pairs = [pair for group in zip(answers, others, strict=True) for pair in zip(*group, strict=True)]
    assert [one.tokens for one, _ in pairs] == [other.tokens for _, other in pairs]
    for one, other in pairs:
        assert torch.allclose(torch.tensor(one.log_probs), torch.tensor(other.log_probs), atol=1e-4)


HOW = [
    {"temperature": 0.6, "top_p": 0.95},
    {"temperature": 1.3, "top_k": 9, "top_p": 0.8},
    {"top_k": 3, "ignore_eos": True},
    {"temperature": 0.0, "top_k": 4, "ignore_eos": True},
]


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
def test_cut_off_or_past_the_end_tokens_are_the_same_decoded_at_once_and_step_by_step(form):
    """Beside a request with a stop string every token is a step of its own; alone all are one call."""
    model = model_of("qwen3")
    dtype = torch.float32 if form == "float32" else torch.bfloat16
    ends = range(model.config.vocab_size // 8)

    def said(asked: list[Request]) -> list:
        engine = Engine(model, ends, dtype, 8, form=Format(form))
        return [(one.tokens, one.log_probs, one.finish_reason) for (one,) in engine.generate(asked)]

    requests = [Request((5, 6, 7 + n), n, 1, Sampling(max_tokens=30, **own)) for n, own in enumerate(HOW)]
    assert all(request.sampling.is_simple for request in requests)
    slow = Request((9, 8), 77, 1, Sampling(max_tokens=40, ignore_eos=True, logit_bias={3: 0.5}))
    together, alone = said([*requests, slow])[:-1], [said([request])[0] for request in requests]
    assert together == alone == said(requests)
    for (tokens, _, reason), own in zip(alone, HOW, strict=True):
        assert (reason == "stop") == (tokens[-1] in ends and not own.get("ignore_eos", False))
        assert len(tokens) == 30 or not own.get("ignore_eos", False)
    assert any(token in ends for token in alone[2][0][:-1])


@pytest.mark.parametrize("form", ["float32", "bfloat16"])
@pytest.mark.parametrize("own", HOW, ids=str)
def test_asking_what_tokens_were_drawn_from_changes_no_bit_of_them(own, form):
    model = model_of("qwen3")
    engine = Engine(model, (), torch.float32 if form == "float32" else torch.bfloat16, 8, form=Format(form))

    def answered(**more):
        sampling = Sampling(max_tokens=12, **own, **more)
        return engine.generate([Request((5, 6, 7), 4, 1, sampling)])[0][0]

    plain, told = answered(), answered(processed_log_probs=True)
    assert engine.why_plain is None
    assert (told.tokens, told.log_probs) == (plain.tokens, plain.log_probs)
    for log_prob, draw in zip(told.log_probs, told.draws, strict=True):
        if own.get("temperature", 1.0):
            assert draw.processed_log_prob == pytest.approx(log_prob - np.log(draw.kept_mass), abs=1e-5)
        else:
            assert draw.processed_log_prob == 0
            assert draw.kept_mass == pytest.approx(np.exp(log_prob), abs=1e-5)
        if own.get("temperature", 1.0) in (0, 1):
            assert draw.raw_log_prob == log_prob


def test_slots_tell_where_their_arrays_are_also_when_these_have_grown():
    slots = Slots(2, 4, 3)
    assert slots.addresses.tolist() == [getattr(slots, name).ctypes.data for name in Slots.FOR_KERNEL]
    slots.grow(4096, 512)
    assert slots.addresses.tolist() == [getattr(slots, name).ctypes.data for name in Slots.FOR_KERNEL]
