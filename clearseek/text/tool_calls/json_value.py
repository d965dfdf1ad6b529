"""A JSON object or list, checked character by character as it comes (RFC 8259)."""

import re

from clearseek.text.tool_calls.reader import SPACES, NotACall, Reader, Steps

_DEEPEST = 100
_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_SCALAR = re.compile(r"[-+.0-9A-Za-z]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_LONGEST_SCALAR = 400  # characters of a number
_HEX = "0123456789abcdefABCDEF"
_ESCAPED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}  # what models leave bare in strings, and JSON may not have


class JsonValue:
    """Reads one object or list from a reader. `taken` is what came of it since it was last taken out."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._pieces: list[str] = []
        self._closers: list[str] = []

    def take(self) -> str:
        """The text since the last time."""
        text = "".join(self._pieces)
        self._pieces.clear()
        return text

    def steps(self) -> Steps[None]:
        """Read to its last brace. Yields None also where there is more to take. `NotACall` where it is not JSON."""
        yield from self._open()
        while self._closers:
            yield from self._member()

    def _open(self) -> Steps[None]:
        """A brace or bracket, and its partner where it holds nothing."""
        bracket = yield from self._one_of("{[")
        if len(self._closers) >= _DEEPEST:
            raise NotACall
        self._closers.append("}" if bracket == "{" else "]")
        character = yield from self._spaces()
        if character == self._closers[-1]:
            yield from self._close()
        elif bracket == "{":
            yield from self._key()

    def _key(self) -> Steps[None]:
        yield from self._spaces()
        yield from self.string()
        yield from self._spaces()
        yield from self._one_of(":")

    def _member(self) -> Steps[None]:
        """A value, and what follows it; of an object or list that holds something only its beginning."""
        character = yield from self._spaces()
        if character and character in "{[":
            yield from self._open()
            return
        yield from self.string() if character == '"' else self.scalar()
        yield from self._after_value()

    def _after_value(self) -> Steps[None]:
        character = yield from self._spaces()
        if character == ",":
            self._put(1)
            if self._closers[-1] == "}":
                yield from self._key()
        else:
            yield from self._close()

    def _close(self) -> Steps[None]:
        yield from self._one_of(self._closers[-1])
        self._closers.pop()
        if self._closers:
            yield from self._after_value()

    def string(self) -> Steps[None]:
        """A string in quotes."""
        reader = self._reader
        yield from self._one_of('"')
        while True:
            character = yield from reader.peek()
            if character == '"':
                self._put(1)
                return
            if character == "\\":
                yield from self._escape()
            elif character in _ESCAPED:
                reader.place += 1
                self._pieces.append(_ESCAPED[character])
            elif not character or character < " ":
                raise NotACall
            else:
                end = _PLAIN.match(reader.text, reader.place)
                assert end is not None, "it matches nothing at all, too"
                self._put(end.end() - reader.place)

    def _escape(self) -> Steps[None]:
        reader, length = self._reader, 2
        while len(reader.text) < reader.place + length:
            if reader.is_over:
                raise NotACall
            yield None
        kind = reader.text[reader.place + 1]
        if kind == "u":
            length = 6
            while len(reader.text) < reader.place + length and not reader.is_over:
                yield None
            digits = reader.text[reader.place + 2 : reader.place + 6]
            if len(digits) < 4 or any(digit not in _HEX for digit in digits):
                raise NotACall
        elif kind not in '"\\/bfnrt':
            raise NotACall
        self._put(length)

    def scalar(self) -> Steps[None]:
        """A number, true, false or null."""
        reader = self._reader
        while True:
            found = _SCALAR.match(reader.text, reader.place)
            assert found is not None, "it matches nothing at all, too"
            if found.end() < len(reader.text) or reader.is_over:
                break
            if found.end() - reader.place > _LONGEST_SCALAR:
                raise NotACall
            yield None
        text = found.group()
        if len(text) > _LONGEST_SCALAR or (
            text not in ("true", "false", "null") and not _NUMBER.fullmatch(text)
        ):
            raise NotACall
        self._put(len(text))

    def _spaces(self) -> Steps[str]:
        while (character := (yield from self._reader.peek())) and character in SPACES:
            self._put(1)
        return character

    def _one_of(self, characters: str) -> Steps[str]:
        character = yield from self._reader.peek()
        if not character or character not in characters:
            raise NotACall
        self._put(1)
        return character

    def _put(self, length: int) -> None:
        reader = self._reader
        self._pieces.append(reader.text[reader.place : reader.place + length])
        reader.place += length
