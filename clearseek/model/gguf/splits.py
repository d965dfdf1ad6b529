"""How byte-level tokenizers split text before merging, and llama.cpp's names of those ways.

A GGUF file does not carry the patterns, only a name that llama.cpp has built in. The patterns are those of the
published tokenizer.json files.
"""

from collections.abc import Mapping
from typing import Any

_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_END = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+%s",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*%s",
)

GPT2 = (r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",)
LLAMA3 = (rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_SYMBOLS}|{_END}",)
QWEN2 = (rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_SYMBOLS}|{_END}",)
TEKKEN = (rf"{_CASED[0] % ''}|{_CASED[1] % ''}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_END}",)
GPT4O = (
    rf"{_CASED[0] % (_CONTRACTIONS + '?')}|{_CASED[1] % (_CONTRACTIONS + '?')}"
    rf"|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_END}",
)
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    r"[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)

# the first name of each is the one we write; the others are read as the same
SPLITS: dict[str, tuple[str, ...]] = {
    "llama-bpe": LLAMA3,
    "llama3": LLAMA3,
    "llama-v3": LLAMA3,
    "smaug-bpe": LLAMA3,
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "hunyuan": QWEN2,
    "deepseek-v3": DEEPSEEK_V3,
    "hunyuan-dense": DEEPSEEK_V3,
    "tekken": TEKKEN,
    "gpt-4o": GPT4O,
    "llama4": GPT4O,
    "gpt-2": GPT2,
}
# where a whole piece that is a token is taken as it is, before any merge
WHOLE_FIRST = frozenset({"llama-bpe", "llama3", "llama-v3", "smaug-bpe", "tekken"})


def split_name(pre_tokenizer: Mapping[str, Any] | None) -> str | None:
    """llama.cpp's name for a tokenizer.json's `pre_tokenizer`; None where it has none."""
    patterns = tuple(_patterns(pre_tokenizer))
    return next((name for name, known in SPLITS.items() if known == patterns), None)


def pre_tokenizer_of(name: str) -> dict[str, Any]:
    """The tokenizer.json `pre_tokenizer` of a name in SPLITS."""
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in SPLITS[name]
    ]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*splits, byte_level]}


def _patterns(step: Mapping[str, Any] | None) -> list[str]:
    """The patterns that text is split by, in order; one that can't match stands for what llama.cpp has not got."""
    step = step or {}
    kind = step.get("type")
    if kind == "Sequence":
        return [pattern for part in step.get("pretokenizers", []) for pattern in _patterns(part)]
    if kind == "ByteLevel" and not step.get("add_prefix_space"):
        return [*GPT2] if step.get("use_regex", True) else []
    if kind == "Digits" and step.get("individual_digits"):
        return [r"\p{N}"]
    if kind == "Split" and step.get("behavior") == "Isolated" and not step.get("invert"):
        pattern = step.get("pattern", {})
        return [str(pattern.get("Regex", f"literal {pattern}"))]
    return [f"unknown {kind}"]
