"""Special tokens as tokenizer_config.json and special_tokens_map.json declare them, however they are written."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from clearseek.config.errors import InputError

if TYPE_CHECKING:
    import tokenizers

_FURTHER = ("additional_special_tokens", "extra_special_tokens")


def token_text(token: Any) -> str | None:
    """A token's string, written plainly or as an object with `content`; None for anything else."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def named_tokens(config: Mapping[str, Any], token_map: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens by name, `bos_token` and the like, a model's own (`image_token`) among them.

    As in transformers, the map of older checkpoints counts where the config lists no `added_tokens_decoder`.
    """
    declared = dict(config) if "added_tokens_decoder" in config else {**config, **token_map}
    for table in (declared.pop(key, None) for key in _FURTHER):
        declared |= table if isinstance(table, dict) else {}
    texts = {key: token_text(token) for key, token in declared.items() if key.endswith("_token")}
    return {key: text for key, text in texts.items() if text is not None}


def add_declared_tokens(
    backend: "tokenizers.Tokenizer", library: Any, config: Mapping[str, Any], named: Mapping[str, str]
) -> None:
    """Add to `backend` the tokens that the config declares and tokenizer.json does not treat as such.

    `library` is the tokenizers module. Raises InputError where a token has another id than the config says.
    """
    for index, token in _listed_tokens(config):
        content = token["content"]
        options = {key: bool(token.get(key, False)) for key in ("lstrip", "rstrip", "single_word", "special")}
        normalized = bool(token.get("normalized", not options["special"]))
        backend.add_tokens([library.AddedToken(content, normalized=normalized, **options)])
        if (found := backend.token_to_id(content)) != index:
            raise InputError(
                f"added_tokens_decoder.{index} is {content!r}, which has id {found} in tokenizer.json; "
                "take both files from the same checkpoint"
            )
    lists = (config.get(key) for key in _FURTHER)  # or tables, whose tokens are among the named ones
    further = [token_text(token) for tokens in lists if isinstance(tokens, list) for token in tokens]
    known = {str(token.content) for token in backend.get_added_tokens_decoder().values()}
    for text in [*named.values(), *further]:
        # one that is not in the vocabulary at all would get an id that the model has no embedding for
        if text is not None and text not in known and backend.token_to_id(text) is not None:
            backend.add_special_tokens([text])


def _listed_tokens(config: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """The config's added tokens with their ids, in the order of the ids."""
    listed = config.get("added_tokens_decoder") or {}
    if not isinstance(listed, dict):
        raise InputError("added_tokens_decoder must be a table from ids to tokens")
    for index, token in listed.items():
        if not index.isdecimal() or not isinstance(token, dict) or token_text(token) is None:
            raise InputError(
                f"added_tokens_decoder.{index} must be a token, an object with content, under its id"
            )
    return sorted(((int(index), token) for index, token in listed.items()), key=lambda pair: pair[0])
