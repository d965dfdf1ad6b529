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
from clearseek.model.gguf.tokenizer_files import token_ids, write_tokenizer
from clearseek.model.gguf.vocabulary import vocabulary_keys

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


def like_sentencepiece(directory: Path, space_first: bool) -> tokenizers.Tokenizer:
    """A small BPE over characters with bytes to fall back to, as transformers converts Llama 2's."""
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{number:02X}>" for number in range(256))]
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=420, special_tokens=specials, show_progress=False)
    spaced = tokenizers.normalizers.Replace(" ", "▁")
    first = [tokenizers.normalizers.Prepend("▁")] if space_first else []
    backend.normalizer = tokenizers.normalizers.Sequence([*first, spaced])
    backend.train_from_iterator([word for text in CORPUS for word in text.split()], trainer)
    decoders = tokenizers.decoders
    strip = [decoders.Strip(" ", 1, 0)] if space_first else []
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )
    content = json.loads(backend.to_str())
    content["added_tokens"] = content["added_tokens"][:3]  # bytes are tokens like others
    (directory / "tokenizer.json").write_text(json.dumps(content))
    (directory / "tokenizer_config.json").write_text(
        '{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}'
    )
    return tokenizers.Tokenizer.from_str(json.dumps(content))


@pytest.mark.parametrize("space_first", [True, False])
def test_scores_say_what_merges_said(space_first, tmp_path_factory):
    directory = tmp_path_factory.mktemp("original")
    original = like_sentencepiece(directory, space_first)
    keys, notes = vocabulary_keys(directory, original.get_vocab_size())
    assert (keys["tokenizer.ggml.model"], notes) == ("llama", [])
    assert keys["tokenizer.ggml.token_type"][:4] == [2, 3, 3, 6]
    assert keys["tokenizer.ggml.add_space_prefix"] is space_first
    back = read_back(keys, tmp_path_factory.mktemp("back"), whole=False)

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from(TEXTS) | st.text(st.characters(codec="utf-8"), max_size=30))
    def same(text):
        assert back.encode(text).ids == original.encode(text).ids
        assert back.decode(original.encode(text).ids) == original.decode(original.encode(text).ids)

    same()


def test_special_tokens_keep_their_parts(tmp_path):
    original = tokenizer_like("qwen2", tmp_path)
    keys, _ = vocabulary_keys(tmp_path, original.get_vocab_size())
    file = GgufFile(Path("m.gguf"), keys, {})
    assert token_ids(file) == {
        "bos_token_id": None,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "unk_token_id": None,
    }
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
        (
            {"tokenizer.ggml.model": "bert"},
            "tokenizer.ggml.model 'bert' is not supported; known ones: gpt2, llama",
        ),
        ({"tokenizer.ggml.tokens": None}, "tokenizer.ggml.tokens has to be a list of str"),
        ({"tokenizer.ggml.tokens": ["a", 3]}, "tokenizer.ggml.tokens has to be a list of str"),
        ({"tokenizer.ggml.token_type": [1]}, "tokenizer.ggml.token_type has 1 entries for 2 tokens"),
        ({"tokenizer.ggml.model": "llama"}, "tokenizer.ggml.scores has to be a list of float"),
        (
            {"tokenizer.ggml.pre": "falcon"},
            "tokenizer.ggml.pre 'falcon' is not supported; known ones: llama-bpe",
        ),
    ],
)
def test_other_vocabularies_are_refused_by_name(keys, message, tmp_path):
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": ["a", "b"],
    }
    metadata = {key: value for key, value in {**metadata, **keys}.items() if value is not None}
    with pytest.raises(InputError, match=message):
        write_tokenizer(GgufFile(Path("m.gguf"), metadata, {}), tmp_path)


# llama.cpp's own vocabularies of published models, with texts and their tokens, come with llama-cpp-python's source
PUBLISHED = Path(os.environ.get("CLEARSEEK_PUBLISHED") or Path(__file__).parents[2] / ".published")


@pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "gpt-2", "llama-spm", "phi-3"])
def test_published_vocabularies_encode_as_llama_cpp_says(name, tmp_path):
    path = PUBLISHED / f"ggml-vocab-{name}.gguf"
    if not path.is_file():
        pytest.skip(f"no published vocabularies in {PUBLISHED}; CLEARSEEK_PUBLISHED names another place")
    file = read_header(path)
    assert file.metadata["tokenizer.ggml.pre"] in (*SPLITS, "default")
    write_tokenizer(file, tmp_path)
    back = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = path.with_suffix(".gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    wanted = path.with_suffix(".gguf.out").read_text().splitlines()
    assert len(texts) > 40
    for text, ids in zip(texts, wanted, strict=False):
        assert back.encode(text, add_special_tokens=False).ids == [int(number) for number in ids.split()], (
            text
        )
