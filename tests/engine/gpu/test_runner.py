"""The GPU's runner whole: beside PyTorch's, in every shape that it knows, in every format, through the engine."""

import pytest

pytest.importorskip("triton", reason="triton is not installed; make test-gpu brings it")

import numpy as np
import torch

from clearseek.engine import runners
from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format
from clearseek.engine.gpu import support
from clearseek.engine.gpu.runner import GpuRunner
from clearseek.engine.mixed_formats import Formats
from clearseek.engine.plain_runner import PlainRunner
from clearseek.engine.request import Request, Sampling
from clearseek.engine.runner import Batch
from clearseek.engine.speculation import Speculation
from clearseek.model.decoder import Decoder
from tests.engine.gpu.device import DEVICE
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, FAMILY_CONFIGS, some_tokens, tiny_model

TABLES = np.array([[3, 1], [2, 0]], np.int32)
ALL = CONFIGS | FAMILY_CONFIGS
KNOWN = [name for name, config in ALL.items() if not config.index_topk]


def model_of(name: str) -> Decoder:
    return tiny_model(ALL[name]).requires_grad_(False).eval().to(DEVICE)


def rows_of(tokens: torch.Tensor, *stretches: tuple[int, int, int]) -> Batch:
    """Stretches (slot, first, last) of rows [B, T], all of whose scores are wanted."""
    slots = np.concatenate([np.full(last - first, slot) for slot, first, last in stretches])
    positions = np.concatenate([np.arange(first, last) for _, first, last in stretches])
    return Batch(tokens.numpy()[slots, positions], positions, slots, TABLES, np.arange(len(slots)))


@pytest.mark.parametrize("name", KNOWN)
def test_a_step_is_pytorch_s(name):
    """A prompt's beginning, the rest of it beside another's first tokens, and new tokens of both."""
    model = model_of(name)
    tokens = some_tokens(model.config, 2, 12)
    found = []
    for runner in PlainRunner(model, torch.float32, 4), GpuRunner(model, Format("float32"), 4):
        steps = ((0, 0, 4),), ((0, 4, 7), (1, 0, 2)), ((0, 7, 8), (1, 2, 3)), ((1, 3, 4),)
        found.append(torch.cat([runner.step(rows_of(tokens, *step)) for step in steps]).log_softmax(-1))
    assert (found[0] - found[1]).abs().max() < 3e-5


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3", "GptOssForCausalLM 0"])
def test_however_a_prompt_is_cut_every_bit_is_the_same(name):
    model = model_of(name)
    tokens, form = some_tokens(model.config, 2, 12), Format("bfloat16")
    wanted = GpuRunner(model, form, 4).step(rows_of(tokens, (0, 0, 9), (1, 0, 5)))
    runner = GpuRunner(model, form, 4)
    cuts = ((0, 0, 2), (1, 0, 1)), ((0, 2, 3),), ((1, 1, 2), (0, 3, 4)), ((0, 4, 9), (1, 2, 5))
    parts = ([], [])
    for cut in cuts:
        scores = runner.step(rows_of(tokens, *cut))
        for slot, first, last in cut:
            parts[slot].append(scores[: last - first])
            scores = scores[last - first :]
    assert torch.equal(torch.cat((*parts[0], *parts[1])), wanted)


@pytest.mark.parametrize(
    ("form", "allowed"), [("bfloat16", 0.03), ("int8", 0.05), ("int4", 0.5), ("fp8", 0.25)]
)
@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3"])
def test_formats_are_as_near_as_their_rounding(name, form, allowed):
    """Without routed layers, where a near tie decides otherwise. The interpreter rounds fp8 twice as coarsely."""
    changes = {"kv_lora_rank": 64, "qk_nope_head_dim": 32, "num_routed_experts": 0} if "deep" in name else {}
    model = lane_sized(name, max_position_embeddings=128, **changes).requires_grad_(False).eval().to(DEVICE)
    assert support.why_not(model, Format(form)) is None
    tokens = some_tokens(model.config, 2, 12)
    batch = rows_of(tokens, (0, 0, 6), (1, 0, 3))
    wanted = PlainRunner(model, torch.float32, 4).step(batch)
    found = GpuRunner(model, Format(form), 4).step(batch)
    assert (found - wanted).norm() / wanted.norm() < allowed


def test_parts_have_formats_of_their_own():
    model = lane_sized("qwen3", max_position_embeddings=128).requires_grad_(False).eval().to(DEVICE)
    forms = Formats(Format("int4"), (("head", Format("fp8")), ("attention", Format("int8"))))
    kept = GpuRunner(model, forms, 4).packed.matrices
    found = {name.rpartition("layers.0.")[2]: weight.form.name for name, weight in kept.items()}
    assert found["head"] == "fp8"
    assert found["attention.q.weight"] == "int8"
    assert found["feed_forward.down.weight"] == "int4"


@pytest.fixture
def on_kernels(monkeypatch):
    """The engine takes the GPU's runner, wherever it is; asks it to record as it does where there is no CUDA."""

    def use(is_so: bool) -> None:
        for module in "engine", "runners":
            monkeypatch.setattr(
                f"clearseek.engine.{module}.why_plain", lambda *_: None if is_so else "told so"
            )
        if is_so:
            made = lambda model, form, dtype, num_blocks, copies, predicts=False: GpuRunner(  # noqa: E731
                model, form, num_blocks, predicts, copies
            )
            monkeypatch.setattr("clearseek.engine.engine.runner_of", made)
        else:
            monkeypatch.setattr("clearseek.engine.engine.runner_of", runners.runner_of)

    return use


def answers(engine: Engine) -> list:
    requests = [
        Request(tuple(range(3, 20)), 0, 2, Sampling(max_tokens=8)),
        Request((7, 8, 9), 1, 1, Sampling(max_tokens=6, temperature=0)),
    ]
    return [one for group in engine.generate(requests) for one in group]


@pytest.mark.parametrize("name", ["deepseek_v3", "qwen3", "MixtralForCausalLM 0", "Qwen2MoeForCausalLM 0"])
def test_answers_are_pytorch_s(name, on_kernels):
    model = model_of(name)
    on_kernels(False)
    wanted = answers(Engine(model, (), torch.float32))
    on_kernels(True)
    engine = Engine(model, (), torch.float32)
    found = answers(engine)
    assert isinstance(engine.runner, GpuRunner)
    assert [one.tokens for one in found] == [one.tokens for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(
            torch.tensor(one.log_probs), torch.tensor(other.log_probs), rtol=0, atol=1e-4
        )


def test_answers_with_a_multi_token_module_s_guesses_are_those_without(on_kernels):
    model = model_of("deepseek_v3 mtp")
    on_kernels(True)
    wanted = answers(Engine(model, (), torch.float32))
    engine = Engine(model, (), torch.float32, speculation=Speculation("mtp", 2))
    assert [one.tokens for one in answers(engine)] == [one.tokens for one in wanted]
    assert sum(engine.acceptance.guessed) > 0


def test_experts_are_told_as_pytorch_tells_them(on_kernels):
    model, found = model_of("deepseek_v3"), []
    for is_so in (True, False):
        on_kernels(is_so)
        engine = Engine(model, (), torch.float32)
        request = Request(tuple(range(3, 12)), 0, 1, Sampling(max_tokens=5, routed_experts=True))
        found.append(engine.generate([request])[0][0].routed_experts)
    assert np.array_equal(*found)


def test_new_weights_answer(on_kernels):
    on_kernels(True)
    engine = Engine(model_of("qwen3"), (), torch.float32)
    answers(engine)
    other = tiny_model(ALL["qwen3"], seed=1).requires_grad_(False).eval().to(DEVICE)
    engine.load_weights(other)
    assert [one.tokens for one in answers(engine)] == [
        one.tokens for one in answers(Engine(other, (), torch.float32))
    ]


def test_what_the_kernels_do_not_know_is_named(monkeypatch):
    indexed = next(config for config in FAMILY_CONFIGS.values() if config.index_topk)
    assert "indexer" in str(support.why_not(tiny_model(indexed), Format("bfloat16")))
    assert "is not a multiple of the group of 128" in str(
        support.why_not(model_of("qwen3"), Format("int8", 128))
    )
    wide = tiny_model(CONFIGS["llama"].model_copy(update={"head_dim": 256}))
    assert support.why_not(wide, Format("bfloat16")) is None
    assert "head size (256) is above 192, the kernels' most in float32" in str(
        support.why_not(wide, Format("float32"))
    )
    monkeypatch.setattr(support.importlib.util, "find_spec", lambda name: None)
    assert "pip install triton" in str(support.why_not(model_of("qwen3"), Format("bfloat16")))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")
@pytest.mark.parametrize("form", ["float32", "bfloat16", "int8", "int4", "fp8"])
def test_on_a_gpu_the_engine_takes_the_kernels_and_records(form):
    model = lane_sized("qwen3", max_position_embeddings=128).requires_grad_(False).eval().to(DEVICE)
    dtype = torch.float32 if form == "float32" else torch.bfloat16
    engine = Engine(model, (), dtype, form=Format(form))
    assert engine.why_plain is None
    first = answers(engine)
    assert isinstance(engine.runner, GpuRunner)
    assert engine.runner.num_bytes["inputs"] > 0  # something was recorded
    assert [one.log_probs for one in answers(engine)] == [one.log_probs for one in first]
