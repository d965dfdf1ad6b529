"""Tokens to text as they come: a character is given out when its last byte is there, never half of it."""

from collections.abc import Collection, Iterable

from clearseek.text.tokenizer import Tokenizer

_HALF = "\ufffd"  # what decoding makes of bytes that are no character, such as the first ones of one
_LONGEST_HALF = 3  # bytes that a character in UTF-8 may lack one of, and so the most tokens that hold it


class IncrementalDecoder:
    """Turns a stream of token ids into text; special tokens are left out, thought tags and `shown` ids are kept."""

    def __init__(self, tokenizer: Tokenizer, shown: Collection[int] = ()) -> None:
        """Nothing is decoded yet."""
        self._tokenizer = tokenizer
        tags = (tokenizer.think_start_id, tokenizer.think_end_id, *shown)
        self._left_out = {
            token
            for token in tokenizer.control_ids
            if token not in tags and not tokenizer.decode([token], skip_special=True)
        }
        self._context: list[int] = []  # given out already; how the next tokens read may depend on them
        self._before = 0  # characters of the context's text
        self._held: list[int] = []
        self._ahead = 0  # characters of the held tokens' text that are given out already

    def feed(self, token: int) -> str:
        """Take one more token and give back the text that is now certain, which may be none."""
        if token in self._left_out:
            return ""
        self._held.append(token)
        text = self._text_of(self._held)
        if not text.endswith(_HALF):
            return self._give(len(self._held))
        given = ""
        for count in range(len(self._held) - _LONGEST_HALF, 0, -1):
            if text.startswith(self._text_of(self._held[:count])):
                given = self._give(count)
                break
        # what came before the half character is certain, also within the token that holds both
        certain = self._text_of(self._held).rstrip(_HALF)
        given += certain[self._ahead :]
        self._ahead = max(self._ahead, len(certain))
        return given

    def feed_all(self, tokens: Iterable[int]) -> str:
        """As `feed` of one after another, at once where they are whole characters."""
        ids = [token for token in tokens if token not in self._left_out]
        if self._held or not ids:
            return "".join(map(self.feed, ids))
        text = self._tokenizer.decode(self._context + ids)
        if _HALF in text:
            return "".join(map(self.feed, ids))
        given, last = text[self._before :], len(ids) - 1
        while last and self._tokenizer.decode(self._context + ids[:last]).endswith(_HALF):
            last -= 1  # so the context is the one that `feed` would have left
        self._context = ids[last:]
        self._before = len(self._tokenizer.decode(self._context))
        return given

    def close(self) -> str:
        """The tokens have ended: give back what was held, whole or not."""
        return self._give(len(self._held))

    def _give(self, count: int) -> str:
        given, self._held = self._held[:count], self._held[count:]
        text = self._text_of(given)
        if given:
            self._context, self._before = given, len(self._tokenizer.decode(given))
        ahead, self._ahead = self._ahead, max(0, self._ahead - len(text))
        return text[ahead:]

    def _text_of(self, ids: list[int]) -> str:
        """The text of tokens as it reads after the context (some vocabularies drop a first space)."""
        return self._tokenizer.decode(self._context + ids)[self._before :]
