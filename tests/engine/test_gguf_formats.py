"""Formats by part as a GGUF file's types, and back: what is opened again is kept as it was asked for."""

import re

import pytest
import torch

from clearseek.cli.main import main
from clearseek.config.errors import InputError
from clearseek.engine.gguf_formats import gguf_types, is_format
from clearseek.engine.layout import Layout
from clearseek.engine.mixed_formats import stored_formats
from clearseek.engine.session import open_session
from clearseek.model.checkpoint import save_model
from clearseek.model.gguf.header import read_header
from clearseek.model.gguf.read import load_gguf, open_gguf
from clearseek.model.gguf.write import write_gguf
from clearseek.model.kernels import library
from clearseek.text.tokenizer import Tokenizer
from tests.model.gguf_models import WHOLE_BLOCKS, vocabulary_of
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, tiny_model

pytest.importorskip("gguf", reason="the gguf library is absent")
kernels = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")
TEXT = "int4,attention=int8,layers.1.feed_forward=bfloat16,head=float32"
TYPES = {  # of GGUF's names, the first that matches
    r"blk\.\d+\.attn_.*norm": "F32",
    r"blk\.\d+\.attn_": "Q8_0",
    r"blk\.\d+\.ffn_(norm|gate_inp)": "F32",
    r"blk\.\d+\.ffn_(gate|up|down)_exps": "Q8_0",
    r"blk\.1\.ffn_": "BF16",
    r"blk\.\d+\.ffn_": "Q4_0",
    r"output\.weight": "F32",
}


@pytest.mark.parametrize("name", WHOLE_BLOCKS)
def test_every_tensor_has_its_part_s_type(name, tmp_path):
    model, path = tiny_model(WHOLE_BLOCKS[name], std=0.05), tmp_path / "m.gguf"
    text = TEXT + (",experts=int8" if model.config.num_routed_experts else "")
    vocabulary = vocabulary_of(model.config.vocab_size)
    write_gguf(
        model, path, dtype="q4_0", name="tiny", vocabulary=vocabulary, dtype_of=gguf_types(text)(model)
    )
    head = "F32" if model.config.tie_word_embeddings else "Q4_0"
    for tensor, stored in read_header(path).tensors.items():
        if len(stored.shape) > 1:
            wanted = next((kind for each, kind in TYPES.items() if re.match(each, tensor)), head)
            assert stored.type_name == wanted, tensor
    kept, whole = open_gguf(path), load_gguf(path)
    for key in ("layers.0.attention.out.weight", "layers.0.feed_forward.down.weight"):
        if key in kept.stored:
            assert kept.stored.kind(key) == ("int8" if "attention" in key else "q4_0")
            assert torch.equal(kept.stored.floats(key), whole.state_dict()[key])


@kernels
def test_what_is_exported_answers_in_the_formats_it_was_exported_in(tmp_path, monkeypatch, capsys):
    tokenizer = Tokenizer.train(("12 + 5 = 17.",) * 20, 400)
    model = lane_sized("qwen3", vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    save_model(
        model, tmp_path / "m", bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id
    )
    tokenizer.save(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    assert main(["export", "m", "--to", "gguf", "--dtype", "int4,attention=int8"]) == 0
    assert capsys.readouterr().out == "m-INT4-ATTENTION-INT8.gguf\n"
    opened = open_gguf(tmp_path / "m-INT4-ATTENTION-INT8.gguf")
    layout = Layout(opened, stored_formats(opened))
    kinds = [layout._matrices.kind(weight).name for weight in (
        opened.layers[0].attention.q.weight, opened.layers[1].feed_forward.down.weight,
    )]  # fmt: skip
    assert kinds == ["int8", "q4_0"]
    session = open_session("m-INT4-ATTENTION-INT8.gguf", "cpu")
    assert session.engine.form.is_as_stored
    (reply,) = session.replies([{"role": "user", "content": "12 + 5?"}], max_tokens=5)
    assert len(reply.completion.tokens) > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int4,nose=int8", "no part of this model is called 'nose'"),
        ("int8:64", "GGUF's int8 and int4 have groups of 32, not 64; leave :64 out"),
        ("bfloat16,head=fp8", "'fp8' has no type in GGUF; there are float32, bfloat16, int8, int4"),
        ("int4,attention", "is not PATTERN=FORMAT"),
    ],
)
def test_what_gguf_has_not_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        gguf_types(text)(tiny_model(CONFIGS["llama"]))


def test_gguf_s_own_names_and_what_is_none_are_no_formats():
    assert not any(map(is_format, ("q8_0", "q4_k", "bf16", "int3", "")))
    assert all(map(is_format, ("int8", "int4:32", "int4,head=int8")))
