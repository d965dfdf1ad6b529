"""Vocabularies of SentencePiece's kind (Llama 2, Mistral, ERNIE), which a tokenizer.json holds as BPE over characters.

GGUF keeps a score for each token instead of merges: the better of two neighbours' tokens is merged first. The rank
of the merge that makes a token is that score, and the scores give the merges again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

SPACE = "▁"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


def is_sentencepiece_like(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a tokenizer.json is BPE over characters with bytes to fall back to."""
    return bool((tokenizer.get("model") or {}).get("byte_fallback"))


def scores_of(tokenizer: Mapping[str, Any], tokens: Sequence[str]) -> list[float]:
    """Every token's score: minus the rank of the first merge that makes it; tokens that none makes come last."""
    merges = tokenizer["model"]["merges"]
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        ranks.setdefault("".join(merge.split(" ", 1) if isinstance(merge, str) else merge), rank)
    return [-float(ranks.get(token, len(merges))) for token in tokens]


def begins_with_space(tokenizer: Mapping[str, Any]) -> bool:
    """Whether a space is put before the text."""
    return any(
        step.get("type") == "Prepend"
        or (step.get("type") == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for part in ("normalizer", "pre_tokenizer")
        for step in _steps(tokenizer.get(part))
    )


def sentencepiece_json(
    tokens: Sequence[str], types: Sequence[int], scores: Sequence[float], space_first: bool
) -> dict[str, Any]:
    """The parts of a tokenizer.json but for its added tokens, as transformers makes them of SentencePiece's."""
    vocab = {token: number for number, token in enumerate(tokens) if types[number] != UNUSED}
    unknown = next((tokens[number] for number, kind in enumerate(types) if kind == UNKNOWN), None)
    prefix = [{"type": "Prepend", "prepend": SPACE}] if space_first else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if space_first else []
    spaces = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    unspaced = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
    bytes_first = [unspaced, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prefix, spaces]},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": bytes_first},
        "model": {
            "type": "BPE",
            "vocab": vocab,
            "merges": _merges(vocab, types, scores),
            "unk_token": unknown,
            "fuse_unk": True,
            "byte_fallback": True,
        },
    }


def _merges(vocab: Mapping[str, int], types: Sequence[int], scores: Sequence[float]) -> list[list[str]]:
    """Every pair of tokens that joins to one, the best-scored first."""
    pairs = [
        (scores[number], token[:cut], token[cut:])
        for token, number in vocab.items()
        if types[number] in (NORMAL, USER_DEFINED)
        for cut in range(1, len(token))
        if token[:cut] in vocab and token[cut:] in vocab
    ]
    pairs.sort(key=lambda pair: (-pair[0], vocab[pair[1]], vocab[pair[2]]))
    return [[left, right] for _, left, right in pairs]


def _steps(part: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    part = part or {}
    inner = part.get("normalizers") or part.get("pretokenizers")
    return [step for one in inner for step in _steps(one)] if inner else [part]
