"""Published vocabularies as the directories that they are published in, made from GGUF files that hold them.

The files lack how text is split before it is merged; that is written here as the families' tokenizer.json
files have it.
"""

import json
from pathlib import Path
from typing import Any

from tests.text.published import PLACE

_CONTROL, _USER_DEFINED, _UNUSED = 3, 4, 5
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_AFTER_DIGITS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
# Which splits come first, whether a digit stands alone, the Unicode form, and whether whole words skip merging.
# some letters by their numbers, since they would be taken for their look-alikes
_LETTERS = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-"
    "\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama-bpe": {
        "splits": [rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}{_AFTER_DIGITS}"],
        "ignore_merges": True,
    },
    "qwen2": {
        "splits": [rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{_AFTER_DIGITS}"],
        "normalizer": {"type": "NFC"},
    },
    "deepseek-llm": {
        "splits": [
            r"[\r\n]", rf"\s?[{_LETTERS}]+", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"\s+$", "[一-龥ࠀ-一가-퟿]+",
        ],
        "digits": False,
    },
    "deepseek-coder": {
        "splits": [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"],
        "digits": True,
    },
}  # fmt: skip


def path_of(family: str) -> Path:
    """The GGUF file that holds a family's vocabulary."""
    return PLACE / f"ggml-vocab-{family}.gguf"


def texts_and_ids(family: str) -> list[tuple[str, list[int]]]:
    """What the copy brings as a test: texts, and the ids that the publisher's own tokenizer gave them."""
    path = path_of(family)
    texts = path.with_name(path.name + ".inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")
    lines = path.with_name(path.name + ".out").read_text(encoding="utf-8").split("\n")
    return [(text, [int(token) for token in line.split()]) for text, line in zip(texts, lines, strict=False)]


def write_directory(family: str, directory: Path, template: str) -> None:
    """A family's tokenizer.json, tokenizer_config.json and chat_template.jinja."""
    import gguf

    fields = gguf.GGUFReader(path_of(family)).fields
    tokens, kinds, merges = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "token_type", "merges")
    )
    added = [
        {
            "id": index,
            "content": tokens[index],
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == _CONTROL,
        }
        for index, kind in enumerate(kinds)
        if kind in (_CONTROL, _USER_DEFINED)
    ]
    left_out = {index for index, kind in enumerate(kinds) if kind == _UNUSED}
    form = FAMILIES[family]
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False}
        for split in form["splits"]
    ]
    if "digits" in form:
        steps.append({"type": "Digits", "individual_digits": form["digits"]})
    bytes_as_letters = {"add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    content = {
        "version": "1.0",
        "added_tokens": added,
        "normalizer": form.get("normalizer"),
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [*steps, {"type": "ByteLevel", **bytes_as_letters}],
        },
        "decoder": {"type": "ByteLevel", **bytes_as_letters},
        "model": {
            "type": "BPE",
            "ignore_merges": form.get("ignore_merges", False),
            "vocab": {token: index for index, token in enumerate(tokens) if index not in left_out},
            "merges": list(dict.fromkeys(merges)),
        },
    }
    ends = {name: fields[f"tokenizer.ggml.{name}_token_id"].contents() for name in ("bos", "eos")}
    named = {f"{name}_token": tokens[index] for name, index in ends.items()}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **named}
    (directory / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    (directory / "chat_template.jinja").write_text(template, encoding="utf-8")
