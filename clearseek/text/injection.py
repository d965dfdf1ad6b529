"""User text stays text: encode it so that what looks like a special token in it never becomes one."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

Encode = Callable[[str], list[int]]

_NEVER = r"(?!)"
_PRIVATE_USE = range(0xE000, 0xF900)


class PlainTextEncoder:
    """The same vocabulary without its control tokens, and a guard for text that goes through a chat template.

    The guard puts a private character behind every character that could begin a control token. The template
    can then move, trim or join the text as it likes; whatever control token the rendered text shows is the
    template's.
    """

    def __init__(self, backend: "tokenizers.Tokenizer", library: Any) -> None:
        """`library` is the tokenizers module (given by the caller, which imports it lazily)."""
        content = json.loads(backend.to_str())
        control = [token for token in content["added_tokens"] if token["content"].strip()]
        content["added_tokens"] = [token for token in content["added_tokens"] if not token["content"].strip()]
        content["post_processor"] = None
        self.backend = library.Tokenizer.from_str(json.dumps(content))
        self.control_ids = {token["id"] for token in control}
        longest_first = sorted(control, key=lambda token: -len(token["content"]))
        self._pattern = re.compile("|".join(f"({_as_pattern(token)})" for token in longest_first) or _NEVER)
        self._ids_by_group = [token["id"] for token in longest_first]
        first_characters = sorted({token["content"][0] for token in control})
        self._first_characters = re.compile("|".join(map(re.escape, first_characters)) or _NEVER)

    def guard(
        self, messages: Sequence[Mapping[str, Any]], thought_tags: tuple[str, str]
    ) -> tuple[list[dict[str, Any]], str]:
        """Messages with their text guarded, and the private character used (one that no message holds)."""
        held = json.dumps(list(messages), ensure_ascii=False, default=str)
        mark = next(chr(code) for code in _PRIVATE_USE if chr(code) not in held)
        return [self._guard_message(message, mark, thought_tags) for message in messages], mark

    def encode_guarded(self, rendered: str, mark: str, encode: Encode, encode_plain: Encode) -> list[int]:
        """Token ids of a rendered conversation: its control tokens as tokens, all else as plain text.

        Where no message holds a control token's string, this is what `encode` gives for the whole text.
        """
        plain = rendered.replace(mark, "")
        found = [(match.start(), match.end(), match.lastindex) for match in self._pattern.finditer(plain)]
        if found == self._control_tokens(rendered, mark):
            return encode(plain)
        ids: list[int] = []
        end = 0
        for start, next_end, group in self._control_tokens(rendered, mark):
            ids += encode_plain(plain[end:start])
            ids.append(self._ids_by_group[(group or 1) - 1])
            end = next_end
        return ids + encode_plain(plain[end:])

    def _control_tokens(self, rendered: str, mark: str) -> list[tuple[int, int, int | None]]:
        """Where the template's control tokens begin and end in the text without marks, and which they are."""
        tokens, marks, seen = [], 0, 0
        for match in self._pattern.finditer(rendered):
            marks += rendered.count(mark, seen, match.start())
            seen = match.end()
            tokens.append((match.start() - marks, match.end() - marks, match.lastindex))
        return tokens

    def _guard_message(
        self, message: Mapping[str, Any], mark: str, thought_tags: tuple[str, str]
    ) -> dict[str, Any]:
        guarded = {
            key: value if key == "role" else self._guard_value(value, mark) for key, value in message.items()
        }
        content = message.get("content")
        if message.get("role") == "assistant" and isinstance(content, str):
            guarded["content"] = self._guard_answer(content, mark, thought_tags)
        return guarded

    def _guard_answer(self, content: str, mark: str, thought_tags: tuple[str, str]) -> str:
        """An assistant's text, with the thought that it begins with still a thought."""
        start, end = thought_tags
        thought, tag, answer = content.partition(end)
        if not tag:
            return self._guard_text(content, mark)
        opening = start if thought.startswith(start) else ""
        return (
            opening
            + self._guard_text(thought.removeprefix(start), mark)
            + end
            + self._guard_text(answer, mark)
        )

    def _guard_value(self, value: Any, mark: str) -> Any:
        if isinstance(value, str):
            return self._guard_text(value, mark)
        if isinstance(value, Mapping):
            return {key: self._guard_value(item, mark) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._guard_value(item, mark) for item in value]
        return value

    def _guard_text(self, text: str, mark: str) -> str:
        return self._first_characters.sub(lambda match: match.group() + mark, text)


def _as_pattern(token: Mapping[str, Any]) -> str:
    """An added token as a pattern, with the white space that the library lets it swallow."""
    before = r"\s*" if token.get("lstrip") else ""
    after = r"\s*" if token.get("rstrip") else ""
    return before + re.escape(token["content"]) + after
