"""Long prompts of latent attention in the expanded form: what it gives, when, and what exactness forgoes."""

import numpy as np
import pytest
import torch

from clearseek.config.server import Server
from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.layout import Layout
from clearseek.engine.mixed_formats import stored_formats
from clearseek.engine.request import Request, Sampling
from clearseek.engine.session import open_session
from clearseek.model.checkpoint import save_model
from clearseek.model.decoder import Decoder
from clearseek.model.gguf.read import load_gguf, open_gguf
from clearseek.model.gguf.write import write_gguf
from clearseek.model.kernels import library
from clearseek.serve import engine_process
from clearseek.serve.open import How, opening_of
from clearseek.text.tokenizer import Tokenizer
from tests.engine.test_fused_runner import LENGTH, SHAPES, WHOLE_GROUPS, rows_of, whole
from tests.model.gguf_models import WHOLE_BLOCKS, vocabulary_of
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import some_tokens, tiny_model

pytestmark = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")

LATENT = [name for name in SHAPES if "deepseek" in name]
RANK = {"kv_lora_rank": 128}  # longer than a key and a value together
CUTS = {
    "whole": [((0, 150), (0, 150))],
    "in two": [((0, 70), (0, 110)), ((70, 150), (110, 150))],
    "after tokens alone": [((0, 150), (0, 40)), *((None, (t, t + 1)) for t in range(40, 50)), (None, (50, 150))],
    "few rows behind many": [((0, 130), (0, 148)), ((130, 150), (148, 150))],
}  # fmt: skip


def model_of(name: str, **changes: object) -> Decoder:
    base = SHAPES[name] | WHOLE_GROUPS | RANK | changes
    return lane_sized(name, max_position_embeddings=512, **base).requires_grad_(False).eval()


def read(layout: Layout, tokens: torch.Tensor, cuts: list) -> torch.Tensor:
    """Scores [2, LENGTH, V] of two sequences that are read by and by."""
    runner, parts = FusedRunner(layout, 8), ([], [])
    for stretches in cuts:
        given = [(slot, *stretch) for slot, stretch in enumerate(stretches) if stretch]
        scores = runner.step(rows_of(tokens, *given))
        for slot, first, last in given:
            parts[slot].append(scores[: last - first])
            scores = scores[last - first :]
    return torch.stack([torch.cat(part) for part in parts])


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
@pytest.mark.parametrize("name", LATENT)
def test_in_fp32_it_is_the_forward_pass(name, cuts, num_threads):
    model = model_of(name)
    tokens = some_tokens(model.config, 2, LENGTH)
    torch.set_num_threads(num_threads)
    found = read(Layout(model, Format("float32"), expands=True), tokens, cuts)
    torch.set_num_threads(1)
    assert (found.log_softmax(-1) - whole(model, tokens).log_softmax(-1)).abs().max() < 1e-5


@pytest.mark.parametrize(("form", "allowed"), [("bfloat16", 0.02), ("int8", 0.03), ("int4", 0.4)])
@pytest.mark.parametrize("cuts", CUTS.values(), ids=CUTS)
def test_formats_are_as_near_as_their_rounding(form, allowed, cuts):
    """Without experts, where a near tie decides otherwise; bits differ from the absorbed form's, so it is taken."""
    model = model_of("deepseek_v3 without query latent", num_routed_experts=0)
    tokens = some_tokens(model.config, 2, LENGTH)
    wanted = whole(model, tokens)
    found = read(Layout(model, Format(form), expands=True), tokens, cuts)
    assert ((found - wanted).norm(dim=-1) / wanted.norm(dim=-1)).max() < allowed
    assert not torch.equal(found, read(Layout(model, Format(form)), tokens, cuts))


def test_few_rows_stay_absorbed():
    model = model_of("deepseek_v3")
    tokens = some_tokens(model.config, 2, LENGTH)
    steps = [((t, min(t + 31, LENGTH)),) * 2 for t in range(0, LENGTH, 31)]
    absorbed, expanding = (
        read(Layout(model, Format("bfloat16"), expands=e), tokens, steps) for e in (False, True)
    )
    assert torch.equal(absorbed, expanding)


@pytest.mark.parametrize("dtype", ["q8_0", "q4_0"])
def test_what_a_file_keeps_in_blocks_is_expanded_too(dtype, tmp_path):
    model = tiny_model(WHOLE_BLOCKS["deepseek_v3"], std=0.05)
    vocabulary = vocabulary_of(model.config.vocab_size)
    write_gguf(model, tmp_path / "m.gguf", dtype=dtype, name="tiny", vocabulary=vocabulary, licence="mit")
    kept = open_gguf(tmp_path / "m.gguf")
    tokens = some_tokens(model.config, 2, LENGTH)
    layouts = (Layout(kept, stored_formats(kept), expands=expands) for expands in (False, True))
    absorbed, expanding = (read(layout, tokens, CUTS["whole"]) for layout in layouts)
    wanted = whole(load_gguf(tmp_path / "m.gguf"), tokens)
    assert (expanding - wanted).norm() < 1.1 * (absorbed - wanted).norm() < 0.2 * wanted.norm()
    assert not torch.equal(absorbed, expanding)


def completed(model: Decoder, exact: bool | None, step_tokens: int) -> list[list[float]]:
    engine = Engine(model, (), torch.bfloat16, 4, copies=False, step_tokens=step_tokens, exact=exact)
    prompts = np.random.default_rng(0).integers(0, model.config.vocab_size, (3, 120))
    requests = [Request(tuple(ids.tolist()), n, 1, Sampling(max_tokens=8)) for n, ids in enumerate(prompts)]
    return [group[0].log_probs for group in engine.generate(requests)]


def test_an_exact_engine_says_the_same_however_prompts_are_cut():
    model = model_of("deepseek_v3")
    assert completed(model, True, 16) == completed(model, True, 400)
    assert completed(model, False, 16) != completed(model, False, 400)  # else this would prove nothing


def test_by_default_where_latents_are_short():
    long, short = model_of("deepseek_v3"), model_of("deepseek_v3", kv_lora_rank=32)
    assert not long.config.absorbs_cheaply
    assert short.config.absorbs_cheaply
    assert not Engine(long, (), torch.bfloat16, copies=False).exact
    assert Engine(short, (), torch.bfloat16, copies=False).exact
    assert Engine(long, (), torch.bfloat16, copies=False, exact=True).exact


def test_a_session_and_a_server_s_process_are_as_exact_as_asked(tmp_path):
    tokenizer = Tokenizer.train(["12 + 5 = 17"] * 20, 300)
    model = model_of("deepseek_v3", vocab_size=tokenizer.vocab_size)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    save_model(model, tmp_path, **ids)
    tokenizer.save(tmp_path)
    assert [open_session(str(tmp_path), exact=exact).engine.exact for exact in (None, True)] == [False, True]
    how = How(exact=True)
    assert engine_process._opened(opening_of(tmp_path, Server(), how))[0].engine.exact
