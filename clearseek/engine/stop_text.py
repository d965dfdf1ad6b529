"""Stop strings in a text that arrives in pieces, wherever the pieces are cut."""

from collections.abc import Sequence


class StopText:
    """Gives a text on up to the first stop string, holding back only what may be the beginning of one.

    The first is the one that is complete first; where two are complete at the same character, the longer. So any
    chunking of a text gives the same decision. Knuth, Morris and Pratt (1977), one character at a time.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """`stops` are not empty strings."""
        self.found: str | None = None
        self._stops = [(stop, _failures(stop)) for stop in sorted(stops, key=len, reverse=True)]
        self._matched = [0] * len(stops)
        self._held = ""

    def feed(self, text: str) -> str:
        """Take more text and give back what is now certain; nothing any more once a stop string is `found`."""
        if self.found is not None:
            return ""
        self._held += text
        start = len(self._held) - len(text)
        for place in range(start, len(self._held)):
            if (stop := self._advance(self._held[place])) is not None:
                self.found = stop
                given, self._held = self._held[: place + 1 - len(stop)], ""
                return given
        certain = len(self._held) - max(self._matched, default=0)
        given, self._held = self._held[:certain], self._held[certain:]
        return given

    def close(self) -> str:
        """The text has ended: give back what was held."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> str | None:
        """The stop string that this character completes."""
        completed = None
        for i, (stop, failures) in enumerate(self._stops):
            matched = self._matched[i]
            while matched and stop[matched] != character:
                matched = failures[matched - 1]
            self._matched[i] = matched = matched + (stop[matched] == character)
            if matched == len(stop) and completed is None:
                completed = stop
        return completed


def _failures(pattern: str) -> list[int]:
    """For each beginning of `pattern` the length of its longest proper end that is a beginning too."""
    lengths, matched = [0], 0
    for character in pattern[1:]:
        while matched and pattern[matched] != character:
            matched = lengths[matched - 1]
        matched += pattern[matched] == character
        lengths.append(matched)
    return lengths
