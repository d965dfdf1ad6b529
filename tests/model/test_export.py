"""Exporting: what is written opens again, as the same model with its tokenizer, licence and ids."""

import json
import sys

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.engine.session import open_session
from clearseek.model.checkpoint import load_model, save_model
from clearseek.model.decoder import Decoder
from clearseek.model.export import HF_DTYPES, export_model, stored_dtype
from clearseek.model.families import config_to_published, pieces_of
from clearseek.model.gguf.header import read_header
from clearseek.model.stored import load_tensors
from clearseek.text.tokenizer import Tokenizer
from tests.model.every_family import every_family
from tests.model.gguf_models import LATENT
from tests.model.tiny import LATENT as TINY_LATENT
from tests.model.tiny import tiny_model

TEXTS = [
    "What is 17 + 25?",
    "먼저 12 + 5 = 17 이므로",
    "首先计算",
    "a\n\n  b\t'll <|x|>",
    "<think>no</think>",
]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A small model with a tokenizer, ids, a licence and generation settings beside it."""
    path = tmp_path_factory.mktemp("export") / "small"
    tokenizer = Tokenizer.train(["Let me check: 12 + 5 = 17.\n", "먼저 12 + 5 = 17 입니다.\n"] * 20, 320)
    config = ModelConfig(**{**LATENT, "vocab_size": tokenizer.vocab_size + 3}, max_position_embeddings=64)
    ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
    save_model(tiny_model(config, std=0.05), path, **ids, dtype=torch.bfloat16)
    tokenizer.save(path)
    (path / "LICENSE").write_text("MIT License\n\nPermission is hereby granted, free of charge, …")
    (path / "generation_config.json").write_text('{"temperature": 0.6}')
    return path


def same_weights(a: Decoder, b: Decoder, tolerance: float = 0) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all((x.float() - y.float()).abs().max() <= tolerance for x, y in pairs)


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16", "float16"])
def test_hf_keeps_all_but_the_dtype(directory, tmp_path, dtype):
    exported = export_model(directory, "hf", dtype, tmp_path / "out")
    assert exported.path == tmp_path / "out"
    assert exported.num_bytes == sum(path.stat().st_size for path in (tmp_path / "out").iterdir())
    assert same_weights(
        load_model(tmp_path / "out"), load_model(directory), 0 if dtype != "float16" else 1e-6
    )
    assert stored_dtype(tmp_path / "out") == HF_DTYPES[dtype or "bfloat16"]
    for name in ("tokenizer.json", "LICENSE", "generation_config.json", "chat_template.jinja"):
        assert (tmp_path / "out" / name).read_bytes() == (directory / name).read_bytes()
    ours, theirs = (json.loads((path / "config.json").read_text()) for path in (directory, tmp_path / "out"))
    assert {**ours, "torch_dtype": dtype or "bfloat16"} == theirs


STAY = (
    "layernorm.weight",
    "norm.weight",
    "mlp.gate.weight",
    "embed_tokens.weight",
    "head.weight",
    "eh_proj.weight",
)


@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_fp8_is_written_as_deepseek_publishes_v3(tmp_path, monkeypatch, shard_bytes):
    """Which tensors stay bf16 is what the index of V3's weights has: all that is no map inside a layer."""
    monkeypatch.setattr(
        "clearseek.model.checkpoint.save_state.__kwdefaults__", {"dtype": None, "shard_bytes": shard_bytes}
    )
    sizes = {"hidden_size": 144, "intermediate_size": 160}  # more than a block, and no multiple of it
    config = ModelConfig(**TINY_LATENT | sizes, num_mtp_layers=1)
    model = tiny_model(config)
    save_model(model, tmp_path / "plain", bos_id=0, eos_id=1, pad_id=2)
    exported = export_model(tmp_path / "plain", "hf", "fp8", tmp_path / "out")
    table = json.loads((exported.path / "config.json").read_text())
    assert table["quantization_config"] == {
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128],
    }  # fmt: skip
    assert table["torch_dtype"] == "bfloat16"
    plain, stored = (tensors_of(tmp_path / name) for name in ("plain", "out"))
    state = {}
    for name, tensor in plain.items():
        if name.endswith(STAY):
            assert stored[name].equal(tensor.bfloat16()), name
            assert f"{name}_scale_inv" not in stored
        elif name.endswith("e_score_correction_bias"):
            assert stored[name].equal(tensor)
        else:
            values, scales = stored[name], stored[f"{name}_scale_inv"]
            assert (values.dtype, scales.dtype) == (torch.float8_e4m3fn, torch.float32)
            state[name] = by_formula(values, scales)
            assert (state[name] - tensor).abs().max() <= tensor.abs().max() / 16  # e4m3 keeps 3 bits
    assert len(stored) == len(plain) + len(state)
    back = load_model(exported.path)
    for piece in pieces_of(config):
        if piece.published in state:
            assert piece.of(back.state_dict()[piece.ours]).equal(state[piece.published])


def by_formula(values, scales):
    """A block of 128 x 128 at a time: weight times its scale (DeepSeek-V3, README_WEIGHTS.md)."""
    found = values.float()
    for i in range(scales.shape[0]):
        for j in range(scales.shape[1]):
            found[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)] *= scales[i, j]
    return found


def tensors_of(directory):
    """All shards'; the index, where there is one, names each tensor's file."""
    found = {path.name: load_tensors(path)[0] for path in directory.glob("*.safetensors")}
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        table = json.loads(index.read_text())
        assert table["weight_map"] == {name: file for file, tensors in found.items() for name in tensors}
        sizes = [tensor.nbytes for tensors in found.values() for tensor in tensors.values()]
        assert table["metadata"]["total_size"] == sum(sizes)
    return {name: tensor for tensors in found.values() for name, tensor in tensors.items()}


@pytest.mark.parametrize("family", every_family())
def test_every_family_is_read_back_from_fp8_or_refused(tmp_path, family):
    model = tiny_model(every_family()[family])
    save_model(model, tmp_path / "plain", bos_id=0, eos_id=1, pad_id=2)
    if family == "gpt_oss":
        with pytest.raises(
            InputError, match="family gpt_oss publishes its experts transposed, which block-fp8 has no"
        ):
            export_model(tmp_path / "plain", "hf", "fp8", tmp_path / "out")
        return
    export_model(tmp_path / "plain", "hf", "fp8", tmp_path / "out")
    back = load_model(tmp_path / "out")
    assert config_to_published(back.config) == config_to_published(model.config)
    for name, tensor in back.state_dict().items():
        ours = model.state_dict()[name]
        assert (tensor - ours).abs().max() <= ours.abs().max() / 16, name
    again = export_model(tmp_path / "out", "hf", "float32", tmp_path / "again").path
    assert "quantization_config" not in json.loads((again / "config.json").read_text())
    assert same_weights(load_model(again), back)


@pytest.fixture(scope="module")
def gguf_file(directory, tmp_path_factory):
    """The same as a GGUF file."""
    pytest.importorskip("gguf", reason="the gguf library is absent")
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    told = []
    exported = export_model(directory, "gguf", None, path, lambda done, total: told.append((done, total)))
    assert exported.num_bytes == path.stat().st_size
    assert told[-1][0] == told[-1][1] > 0
    assert exported.notes == [
        "llama.cpp has no name for how this tokenizer splits text: it will split some texts otherwise than clearseek"
    ]
    return path


def test_gguf_carries_tokens_ids_template_and_licence(directory, gguf_file):
    metadata, tokenizer = read_header(gguf_file).metadata, Tokenizer.load(directory)
    tokens = metadata["tokenizer.ggml.tokens"]
    assert len(tokens) == tokenizer.vocab_size + 3
    assert tokens[-1] == f"[PAD{len(tokens) - 1}]"
    assert tokens[metadata["tokenizer.ggml.eos_token_id"]] == "<｜end▁of▁sentence｜>"
    assert metadata["tokenizer.chat_template"] == (directory / "chat_template.jinja").read_text()
    assert metadata["general.license"] == "mit"
    assert metadata["general.file_type"] == 32
    types = metadata["tokenizer.ggml.token_type"]
    assert [types[tokenizer.token_id(t)] for t in ("<｜User｜>", "<think>")] == [3, 4]
    assert (types.count(1), types[-3:]) == (tokenizer.vocab_size - 7, [5, 5, 5])


def test_gguf_and_back_is_the_same_model_and_tokenizer(directory, gguf_file, tmp_path):
    export_model(gguf_file, "hf", None, tmp_path / "back")
    assert same_weights(load_model(tmp_path / "back"), load_model(directory))
    assert stored_dtype(tmp_path / "back") == torch.bfloat16
    ours, theirs = Tokenizer.load(directory), Tokenizer.load(tmp_path / "back")
    assert [ours.encode(text) for text in TEXTS] == [theirs.encode(text) for text in TEXTS]
    assert (ours.bos_id, ours.eos_id, ours.pad_id) == (theirs.bos_id, theirs.eos_id, theirs.pad_id)
    messages = [{"role": "user", "content": "7 + 5?"}]
    assert ours.encode_chat(messages) == theirs.encode_chat(messages)
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config["eos_token_id"] == ours.eos_id


def test_a_gguf_file_is_talked_with_like_a_directory(directory, gguf_file):
    settings = {"temperature": 0, "max_tokens": 8}
    messages = [{"role": "user", "content": "12 + 5"}]
    answers = [
        list(open_session(str(path), "cpu").stream(messages, **settings)) for path in (directory, gguf_file)
    ]
    assert answers[0] == answers[1]


def test_gguf_to_gguf_keeps_the_vocabulary(gguf_file, tmp_path):
    export_model(gguf_file, "gguf", "q8_0", tmp_path / "q.gguf")
    ours, theirs = (read_header(path).metadata for path in (gguf_file, tmp_path / "q.gguf"))
    assert {k: v for k, v in ours.items() if "tokenizer" in k} == {
        k: v for k, v in theirs.items() if "tokenizer" in k
    }
    assert theirs["general.file_type"] == 7


def test_without_the_library_it_says_what_to_install(directory, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(InputError, match=r"need the gguf library .*pip install 'clearseek\[gguf\]'"):
        export_model(directory, "gguf", "f32", tmp_path / "x.gguf")


def test_places_that_are_taken_and_foreign_dtypes_are_refused(directory, tmp_path):
    with pytest.raises(InputError, match=r"is there already; name another place with --out"):
        export_model(directory, "hf", None, tmp_path)
    with pytest.raises(
        InputError, match="--dtype q4_k does not belong to --to hf; known ones: float32, bfloat16"
    ):
        export_model(directory, "hf", "q4_k", tmp_path / "x")
    with pytest.raises(
        InputError, match="--dtype float32 does not belong to --to gguf; known ones: f32, f16"
    ):
        export_model(directory, "gguf", "float32", tmp_path / "x")


def test_the_place_follows_the_model(directory, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert export_model(directory, "hf").path.name == "small-hf"
    pytest.importorskip("gguf", reason="the gguf library is absent")
    assert export_model(directory, "gguf", "q8_0").path.name == "small-Q8_0.gguf"


def test_a_tokenizer_that_is_not_bpe_is_refused(directory, tmp_path):
    pytest.importorskip("gguf", reason="the gguf library is absent")
    export_model(directory, "hf", None, tmp_path / "m")
    content = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    content["model"] = {"type": "Unigram", "vocab": []}
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is of type Unigram; only BPE can be written as GGUF"):
        export_model(tmp_path / "m", "gguf", "f32", tmp_path / "x.gguf")


def test_bpe_without_merges_is_refused(directory, tmp_path):
    """llama.cpp would refuse the file: "cannot find tokenizer merges in model file"."""
    pytest.importorskip("gguf", reason="the gguf library is absent")
    export_model(directory, "hf", None, tmp_path / "m")
    content = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    content["model"]["merges"] = []
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"has no merges, without which llama\.cpp opens no BPE vocabulary"):
        export_model(tmp_path / "m", "gguf", "f32", tmp_path / "x.gguf")
    assert not (tmp_path / "x.gguf").exists()


AUTO_MAP = {"AutoConfig": "configuration_mimo.MiMoConfig", "AutoModelForCausalLM": "modeling_mimo.MiMo"}


@pytest.mark.parametrize("family", ["mimo", "qwen3"])
def test_code_that_a_model_came_with_goes_along(family, tmp_path):
    """It is never run: this would end the process."""
    save_model(tiny_model(every_family()[family]), tmp_path / "m", bos_id=0, eos_id=1, pad_id=2)
    without = export_model(tmp_path / "m", "hf", None, tmp_path / "without")
    assert not list(without.path.glob("*.py"))
    assert "auto_map" not in json.loads((without.path / "config.json").read_text())
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps(config | {"auto_map": AUTO_MAP}))
    for name in ("configuration_mimo", "modeling_mimo", "tokenization_mimo"):
        (tmp_path / "m" / f"{name}.py").write_text("raise SystemExit('run')\n")
    exported = export_model(tmp_path / "m", "hf", None, tmp_path / "with")
    assert json.loads((exported.path / "config.json").read_text()) == config | {"auto_map": AUTO_MAP}
    assert {path.name for path in exported.path.glob("*.py")} == {
        path.name for path in (tmp_path / "m").glob("*.py")
    }
    assert same_weights(load_model(exported.path), load_model(tmp_path / "m"))
    if family == "qwen3":
        assert (without.notes, exported.notes) == ([], [])
        return
    assert without.notes == [
        "transformers has no MiMoForCausalLM, and this model came without code for it: clearseek and vLLM open it, "
        "transformers does not"
    ]
    assert exported.notes == [
        "transformers has no MiMoForCausalLM: it opens this with trust_remote_code=True, by the code kept beside"
    ]


def test_an_auto_map_that_is_none_is_named(tmp_path):
    save_model(tiny_model(every_family()["mimo"]), tmp_path / "m", bos_id=0, eos_id=1, pad_id=2)
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": "modeling.py"}))
    with pytest.raises(InputError, match=r"config\.json: auto_map = 'modeling\.py' has to be an object"):
        export_model(tmp_path / "m", "hf", None, tmp_path / "x")


def test_a_token_beyond_the_vocabulary_is_refused(directory, tmp_path):
    pytest.importorskip("gguf", reason="the gguf library is absent")
    export_model(directory, "hf", None, tmp_path / "m")
    content = json.loads((tmp_path / "m" / "tokenizer.json").read_text())
    content["model"]["vocab"]["zzz"] = 5000
    (tmp_path / "m" / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="has a token 5000, but the model's vocabulary ends at"):
        export_model(tmp_path / "m", "gguf", "f32", tmp_path / "x.gguf")
