"""A GGUF file's blocks in the engine: the file's own numbers, bit by bit, and no copy of them in floats."""

import numpy as np
import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format, Quantised, lay_out, lay_out_quantised, product
from clearseek.engine.layout import Layout
from clearseek.engine.matrices import Matrices
from clearseek.engine.mixed_formats import Formats, stored_formats
from clearseek.engine.request import Request, Sampling
from clearseek.model.gguf.header import read_header
from clearseek.model.gguf.read import load_gguf, open_gguf
from clearseek.model.gguf.write import write_gguf
from clearseek.model.kernels import library
from tests.model.gguf_models import OF_FAMILIES, WHOLE_BLOCKS, vocabulary_of
from tests.model.tiny import some_tokens, tiny_model

gguf = pytest.importorskip("gguf", reason="the gguf library is absent")
kernels = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")
KINDS = {"q8_0": "int8", "q4_0": "q4_0"}


def written(name, dtype, path):
    """A file whose blocks llama.cpp's rounding would not choose: one number of each is not what it was."""
    model = tiny_model((WHOLE_BLOCKS | OF_FAMILIES)[name], std=0.05)
    write_gguf(
        model,
        path,
        dtype=dtype,
        name="tiny",
        vocabulary=vocabulary_of(model.config.vocab_size),
        licence="mit",
    )
    data = np.memmap(path, np.uint8, "r+")
    for stored in read_header(path).tensors.values():
        size = {"Q8_0": 34, "Q4_0": 18}.get(stored.type_name)
        if size is not None:
            blocks = data[stored.offset : stored.offset + stored.num_bytes].reshape(-1, size)
            top = np.abs(blocks[:, 2:].view(np.int8)).argmax(1) if size == 34 else slice(None)
            if size == 34:
                blocks[np.arange(len(blocks)), 2 + top] = 5  # no longer ±127
            else:
                blocks[:, 2:] |= 0x11  # no longer −8
    data.flush()
    return model


def matrices_of(model):
    return [name for name, each in model.named_parameters() if each.is_meta]


@pytest.mark.parametrize("dtype", ["q8_0", "q4_0", "bf16"])
@pytest.mark.parametrize("name", [*WHOLE_BLOCKS, "gpt-oss", "hy_v3"])
def test_what_stays_in_the_file_is_what_is_read_from_it(name, dtype, tmp_path):
    written(name, dtype, tmp_path / "m.gguf")
    whole, model = load_gguf(tmp_path / "m.gguf").state_dict(), open_gguf(tmp_path / "m.gguf")
    kept = matrices_of(model)
    assert kept
    assert all(whole[key].ndim > 1 for key in kept)
    for key, tensor in whole.items():
        if key not in kept:
            assert torch.equal(model.state_dict()[key], tensor), key
        elif (key, "latent_keys") in model.stored.entries:
            found = [model.stored.floats(key, half) for half in ("latent_keys", "latent_values")]
            by_head = tensor.unflatten(0, (model.config.num_heads, -1))
            assert torch.equal(torch.cat((found[0].mT, found[1]), 1), by_head), key
        else:
            assert torch.equal(model.stored.floats(key), tensor), key


@kernels
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", WHOLE_BLOCKS)
def test_products_are_those_of_the_library_s_weights(name, dtype, tmp_path):
    """Blocks of any rounding are kept: a second one would be seen, and is, in the last line."""
    written(name, dtype, tmp_path / "m.gguf")
    whole, model = load_gguf(tmp_path / "m.gguf").state_dict(), open_gguf(tmp_path / "m.gguf")
    form = Format(KINDS[dtype])
    matrices, rounds = Matrices(model, form), 0
    for key, parameter in model.named_parameters():
        if not parameter.is_meta or model.stored.kind(key) != form.name or parameter.ndim > 2:
            continue
        (matrix,) = matrices.of(parameter, form)
        assert matrix.form == form
        # rows of one number each: activations that are exact in int8
        x = torch.eye(matrix.inputs) * 127
        wanted = x @ whole[key].T
        torch.testing.assert_close(product(x, matrix.laid, matrix.outputs, form), wanted, rtol=1e-6, atol=0)
        rounds += not torch.equal(lay_out(whole[key], form), matrix.laid)
    assert rounds


@kernels
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", WHOLE_BLOCKS)
def test_from_the_engine_to_a_file_and_back_every_bit_is_the_same(name, dtype, tmp_path):
    model, form = tiny_model(WHOLE_BLOCKS[name], std=0.05), Format(KINDS[dtype])
    vocabulary = vocabulary_of(model.config.vocab_size)
    write_gguf(model, tmp_path / "m.gguf", dtype=dtype, name="tiny", vocabulary=vocabulary, licence="mit")
    back = open_gguf(tmp_path / "m.gguf")
    ours, theirs = (
        Layout(model, Formats(form, (("head", Format("int8")),))),
        Layout(back, stored_formats(back)),
    )
    parts = [[kept for kept in layout.kept if kept.dtype == torch.uint8] for layout in (ours, theirs)]
    same = [any(torch.equal(mine, other) for other in parts[1]) for mine in parts[0]]
    assert all(same), same


@kernels
@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("name", WHOLE_BLOCKS)
def test_answers_are_those_of_the_file_s_weights(name, dtype, tmp_path):
    """Against a forward pass in fp32; activations are rounded to int8 in the engine."""
    written(name, dtype, tmp_path / "m.gguf")
    whole, model = load_gguf(tmp_path / "m.gguf").requires_grad_(False), open_gguf(tmp_path / "m.gguf")
    form = stored_formats(model)
    assert form.base.name == KINDS[dtype]
    engine = Engine(model, (), torch.bfloat16, form=form)
    prompt = tuple(some_tokens(model.config, 1, 60)[0].tolist())
    request = Request(prompt, 0, 1, Sampling(max_tokens=10, prompt_log_probs=0))
    found = engine.generate([request])[0][0].prompt_log_probs
    tokens = torch.tensor([prompt])
    scores = whole.logits(whole(tokens, torch.ones_like(tokens), torch.float32, 0).states)[0].log_softmax(-1)
    wanted = scores[torch.arange(59), tokens[0, 1:]]
    assert (torch.tensor(found[1:]) - wanted).abs().mean() < 0.02
    assert all(parameter.is_meta for parameter in engine.model.parameters() if parameter.ndim > 1)


@kernels
@pytest.mark.parametrize("form", ["float32", "bfloat16", "int4"])
def test_another_format_that_is_asked_for_is_taken(form, tmp_path):
    written("qwen3", "q8_0", tmp_path / "m.gguf")
    whole, model = load_gguf(tmp_path / "m.gguf"), open_gguf(tmp_path / "m.gguf")
    wanted = Format(form)
    for key, parameter in model.named_parameters():
        if parameter.is_meta:
            (matrix,) = Matrices(model, wanted).of(parameter, wanted)
            assert torch.equal(matrix.laid, lay_out(whole.state_dict()[key], wanted))
    request = Request((1, 2, 3), 0, 1, Sampling(max_tokens=5))
    found = [
        Engine(each, (), torch.float32, form=wanted).generate([request])[0][0] for each in (model, whole)
    ]
    assert found[0].tokens == found[1].tokens


@kernels
def test_embeddings_stay_blocks(tmp_path):
    written("llama", "q4_0", tmp_path / "m.gguf")
    model, form = open_gguf(tmp_path / "m.gguf"), Format("int4")
    layout = Layout(model, form)
    assert layout.embedding_form.is_quantised
    assert layout.embedding.dtype == torch.uint8
    stored = Quantised(*model.stored.blocks("embedding.weight"))
    assert torch.equal(layout.embedding, lay_out_quantised(stored, layout.embedding_form))


def test_a_file_without_blocks_has_no_format_of_its_own(tmp_path):
    written("llama", "bf16", tmp_path / "m.gguf")
    assert stored_formats(open_gguf(tmp_path / "m.gguf")) is None
