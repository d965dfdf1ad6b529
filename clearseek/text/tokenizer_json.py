"""What must hold of a tokenizer.json before the `tokenizers` library sees it, which trusts its files.

Some contents make the library count for minutes, or end the process where no error can be caught.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clearseek.config.errors import InputError

_MOST_IDS = 2**24  # the largest published vocabulary has a quarter of a million


def check_tokenizer_json(content: Mapping[str, Any]) -> None:
    """Raise InputError, without the file's name, where an id or a merge would make the library fail."""
    model = content.get("model")
    if not isinstance(model, dict):
        raise InputError("not a tokenizer file (it has no model)")
    for token, index in (*_vocabulary_ids(model), *_added_ids(content)):
        if not isinstance(index, int) or not 0 <= index < _MOST_IDS:
            raise InputError(f"token {token!r:.60} has id {index!r:.40}; ids are from 0 to {_MOST_IDS - 1}")
    prefix = model.get("continuing_subword_prefix")
    if isinstance(prefix, str) and prefix and isinstance(merges := model.get("merges"), list):
        for merge in merges:
            if not _second_part(merge).startswith(prefix):
                raise InputError(f"merge {merge!r:.60} doesn't go on with the model's prefix {prefix!r:.20}")


def _vocabulary_ids(model: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
    vocabulary = model.get("vocab")
    return vocabulary.items() if isinstance(vocabulary, dict) else ()


def _added_ids(content: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    added = content.get("added_tokens")
    for token in added if isinstance(added, list) else []:
        if isinstance(token, dict):
            yield token.get("content"), token.get("id")


def _second_part(merge: Any) -> str:
    """What a merge appends: they are written as pairs, or as two parts with a blank between."""
    parts = merge.split(" ") if isinstance(merge, str) else merge
    second = parts[1] if isinstance(parts, list) and len(parts) > 1 else ""
    return second if isinstance(second, str) else ""
