"""Vocabularies in GGUF: published splits known by name, and text encoded as the original tokenizer does."""

import json
import os
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.model.gguf.header import GgufFile, read_header
from clearseek.model.gguf.splits import SPLITS, pre_tokenizer_of, split_name
from clearseek.model.gguf.vocabulary import token_ids, vocabulary_keys, write_tokenizer

CORPUS = [
    "What's 12 + 5? It's 17, isn't it?\n\n",
    "먼저 12 + 5 = 17 이므로 답은 17.\n",
    "首先计算，答案是 17。",
] * 20
TEXTS = [
    *CORPUS[:3],
    "  a\t\tb \r\n c",
    "123456 3.14159",
    "<|im_start|>user\nHi<|im_end|>",
    "don'T WE'LL",
    "😀 ＡＢ",
]


def tokenizer_like(name: str, directory: Path) -> tokenizers.Tokenizer:
    """A small byte-level tokenizer that splits as the named published ones do, saved as they are."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.save(str(directory / "tokenizer.json"))
    content = json.loads((directory / "tokenizer.json").read_text())
    content |= {
        "pre_tokenizer": pre_tokenizer_of(name),
        "decoder": {**pre_tokenizer_of("gpt-2")["pretokenizers"][-1]},
    }
    backend = tokenizers.Tokenizer.from_str(json.dumps(content))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.save(str(directory / "tokenizer.json"))
    config = {"bos_token": None, "eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>"}}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    return backend


def read_back(keys: dict, directory: Path, whole: bool) -> tokenizers.Tokenizer:
    """The tokenizer of a file with these keys; not `whole`: as others write them, without its tokenizer.json."""
    kept = {key: value for key, value in keys.items() if whole or key != "tokenizer.huggingface.json"}
    write_tokenizer(GgufFile(Path("m.gguf"), kept, {}), directory)
    return tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "deepseek-v3", "tekken", "gpt-4o", "gpt-2"])
def test_text_is_encoded_as_before(name, tmp_path_factory):
    directory = tmp_path_factory.mktemp("original")
    original = tokenizer_like(name, directory)
    keys, notes = vocabulary_keys(directory, original.get_vocab_size() + 2)
    assert (keys["tokenizer.ggml.pre"], notes) == (name, [])
    backs = [read_back(keys, tmp_path_factory.mktemp("back"), whole) for whole in (True, False)]

    @settings(max_examples=50, deadline=None)
    @given(st.sampled_from(TEXTS) | st.text(st.characters(codec="utf-8"), max_size=30))
    def same(text):
        if name == "qwen2":  # which composes characters first
            text = tokenizers.normalizers.NFC().normalize_str(text)
        for back in backs:
            assert back.encode(text).ids == original.encode(text).ids
            assert back.decode(original.encode(text).ids) == original.decode(original.encode(text).ids)

    same()


def test_special_tokens_keep_their_parts(tmp_path):
    original = tokenizer_like("qwen2", tmp_path)
    keys, _ = vocabulary_keys(tmp_path, original.get_vocab_size())
    file = GgufFile(Path("m.gguf"), keys, {})
    assert token_ids(file) == {"bos_token_id": None, "eos_token_id": 2, "pad_token_id": 0}
    assert keys["tokenizer.ggml.token_type"][:4] == [3, 3, 3, 1]
    assert keys["tokenizer.ggml.add_bos_token"] is False
    read_back(keys, tmp_path / "back", whole=False)
    config = json.loads((tmp_path / "back" / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["pad_token"], "bos_token" in config) == (
        "<|im_end|>",
        "<|endoftext|>",
        False,
    )


@pytest.mark.parametrize(
    ("step", "name"),
    [
        (pre_tokenizer_of("llama3"), "llama-bpe"),
        ({"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}, "gpt-2"),
        ({"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}, None),
        ({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Isolated", "invert": False}, None),
        ({**pre_tokenizer_of("qwen2")["pretokenizers"][0], "behavior": "Removed"}, None),
        ({"type": "Metaspace"}, None),
        (None, None),
    ],
)
def test_only_a_split_that_is_the_same_has_a_name(step, name):
    assert split_name(step) == name


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.model 'llama' is not supported; only gpt2"),
        (
            {"tokenizer.ggml.pre": "falcon"},
            "tokenizer.ggml.pre 'falcon' is not supported; known ones: llama-bpe",
        ),
    ],
)
def test_other_vocabularies_are_refused_by_name(keys, message, tmp_path):
    metadata = {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2", **keys}
    with pytest.raises(InputError, match=message):
        write_tokenizer(GgufFile(Path("m.gguf"), metadata, {}), tmp_path)


# llama.cpp's own vocabularies of published models, with texts and their tokens, come with llama-cpp-python's source
PUBLISHED = Path(os.environ.get("CLEARSEEK_PUBLISHED") or Path(__file__).parents[2] / ".published")


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "gpt-2"])
def test_published_vocabularies_encode_as_llama_cpp_says(name, tmp_path):
    path = PUBLISHED / f"ggml-vocab-{name}.gguf"
    if not path.is_file():
        pytest.skip(f"no published vocabularies in {PUBLISHED}; CLEARSEEK_PUBLISHED names another place")
    file = read_header(path)
    assert file.metadata["tokenizer.ggml.pre"] in SPLITS
    write_tokenizer(file, tmp_path)
    back = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = path.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    wanted = path.with_suffix(".gguf.out").read_text().splitlines()
    assert len(texts) > 40
    for text, ids in zip(texts, wanted, strict=False):
        assert back.encode(text, add_special_tokens=False).ids == [int(number) for number in ids.split()], (
            text
        )
