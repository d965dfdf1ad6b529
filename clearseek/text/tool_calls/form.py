"""What a family's way of writing calls has to say of itself."""

from typing import Protocol

from clearseek.text.tool_calls.calls import Calls
from clearseek.text.tool_calls.reader import Steps


class CallForm(Protocol):
    """One way of writing calls; a file each."""

    @property
    def markers(self) -> tuple[str, ...]:
        """The texts that begin calls; none of them begins another."""
        ...

    @property
    def tokens(self) -> tuple[str, ...]:
        """Texts that may be special tokens of the vocabulary, and have to be read all the same."""
        ...

    @property
    def id_length(self) -> int:
        """Letters and digits of a call's id, where the family's template asks for so many; else 0."""
        ...

    def read(self, calls: Calls, marker: str) -> Steps[None]:
        """Read calls, after one of the markers. `NotACall` where there are none."""
        ...
