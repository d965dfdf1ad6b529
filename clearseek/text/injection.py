"""User text stays text: encode it so that what looks like a special token in it never becomes one."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tokenizers

Encode = Callable[[str], list[int]]
Span = tuple[int, int, int]  # where a control token begins and ends in a text, and its id

_NEVER = r"(?!)"
_PRIVATE_USE = range(0xE000, 0xF900)


@dataclass(frozen=True, slots=True)
class Guarded:
    """A conversation with its text guarded; `mark` is the private character that does it, held by nothing else.

    `inputs` are what a template gets besides the messages; `holds_token`: a text holds a whole control token.
    """

    messages: list[dict[str, Any]]
    inputs: dict[str, Any]
    mark: str
    holds_token: bool


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
        self._within = _without_first_space(content, library) or self.backend
        self._ids = {token["content"]: token["id"] for token in control}
        self.control_ids = set(self._ids.values())
        self._pattern = _pattern_of(control)
        first_characters = sorted({token["content"][0] for token in control})
        self._first_characters = re.compile("|".join(map(re.escape, first_characters)) or _NEVER)

    def guard(
        self,
        messages: Sequence[Mapping[str, Any]],
        inputs: Mapping[str, Any],
        thought_tags: tuple[str, str],
    ) -> Guarded | None:
        """The conversation guarded; None where no text in it could begin a control token."""
        held = list(_texts([list(messages), dict(inputs)]))
        if not any(map(self._first_characters.search, held)):
            return None
        mark = next(chr(code) for code in _PRIVATE_USE if not any(chr(code) in text for text in held))
        return Guarded(
            [self._guard_message(message, mark, thought_tags) for message in messages],
            {name: self._guard_value(value, mark) for name, value in inputs.items()},
            mark,
            any(map(self._pattern.search, held)),
        )

    def encode_guarded(
        self, rendered: str, exact: str, guarded: Guarded, encode: Encode, encode_plain: Encode
    ) -> list[int]:
        """Token ids of a conversation: the template's control tokens as tokens, all else as plain text.

        `rendered` is the guarded conversation's text, `exact` the unguarded one's. Where no message spells a
        control token this is what `encode` gives for `exact`, as every other program reads the conversation.
        """
        plain = rendered.replace(guarded.mark, "")
        from_template = self._without_marks(rendered, guarded.mark)
        found = self._control_tokens(exact)
        if plain == exact and found == from_template:
            return encode(exact)
        # A template may look at a text's first characters, and so render the guarded text otherwise.
        if plain != exact and not guarded.holds_token and _ids_of(found) == _ids_of(from_template):
            return encode(exact)
        ids: list[int] = []
        end = 0
        for start, next_end, token in from_template:
            ids += self._encode_piece(plain[end:start], end, encode_plain)
            ids.append(token)
            end = next_end
        return ids + self._encode_piece(plain[end:], end, encode_plain)

    def _encode_piece(self, text: str, start: int, encode_plain: Encode) -> list[int]:
        """Plain text from the middle of a conversation, where no vocabulary puts a space before it."""
        if start == 0 or self._within is self.backend:
            return encode_plain(text)
        return list(self._within.encode(text, add_special_tokens=False).ids)

    def _control_tokens(self, text: str) -> list[Span]:
        return [
            (match.start(), match.end(), self._ids[match.group().strip()])
            for match in self._pattern.finditer(text)
        ]

    def _without_marks(self, rendered: str, mark: str) -> list[Span]:
        """The control tokens of a guarded text, placed where they are in it without its marks."""
        spans, marks, seen = [], 0, 0
        for start, end, token in self._control_tokens(rendered):
            marks += rendered.count(mark, seen, start)
            seen = end
            spans.append((start - marks, end - marks, token))
        return spans

    def _guard_message(
        self, message: Mapping[str, Any], mark: str, thought_tags: tuple[str, str]
    ) -> dict[str, Any]:
        guarded: dict[str, Any] = self._guard_value(message, mark)
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
            return {
                self._guard_value(key, mark): self._guard_value(item, mark) for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._guard_value(item, mark) for item in value]
        return value

    def _guard_text(self, text: str, mark: str) -> str:
        return self._first_characters.sub(lambda match: match.group() + mark, text)


def _texts(value: Any) -> Iterator[str]:
    """Every text in JSON data, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in (*value.keys(), *value.values()):
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _ids_of(spans: Iterable[Span]) -> list[int]:
    return [token for _, _, token in spans]


def _pattern_of(control: Sequence[Mapping[str, Any]]) -> re.Pattern[str]:
    """Any of the control tokens, the longest where several fit, with the white space that one swallows."""
    longest_first = sorted(control, key=lambda token: -len(token["content"]))
    alternatives = "|".join(map(_as_pattern, longest_first)) or _NEVER
    if any(token.get("lstrip") for token in control):
        return re.compile(alternatives)
    first_characters = "".join(sorted({re.escape(token["content"][0]) for token in control}))
    # one look at a character instead of a thousand tokens tried at each
    return re.compile(f"(?=[{first_characters}])(?:{alternatives})" if control else _NEVER)


def _as_pattern(token: Mapping[str, Any]) -> str:
    """An added token as a pattern, with the white space that the library lets it swallow."""
    before = r"\s*" if token.get("lstrip") else ""
    after = r"\s*" if token.get("rstrip") else ""
    return before + re.escape(token["content"]) + after


def _without_first_space(content: Mapping[str, Any], library: Any) -> Any:
    """The tokenizer for text that does not begin a conversation, None where that makes no difference."""
    changed = json.dumps(content).replace('"prepend_scheme": "first"', '"prepend_scheme": "never"')
    return library.Tokenizer.from_str(changed) if changed != json.dumps(content) else None
