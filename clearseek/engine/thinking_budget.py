"""A thought that may be so long: at its budget, or when told to answer, it is closed by its own tag.

Budget forcing as in s1 (arXiv:2501.19393), by the tag alone: nothing is put into the model's mouth besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from clearseek.config.errors import InputError
from clearseek.text.incremental import IncrementalDecoder
from clearseek.text.thoughts import ThoughtParser
from clearseek.text.tokenizer import Tokenizer

_TAIL = 16  # tokens of a prompt that surely hold an opening tag at its end


@dataclass(frozen=True)
class ThoughtTags:
    """How a model's thoughts are opened and closed, as token ids; plain text where there is no such token."""

    tokenizer: Tokenizer
    start_id: int | None
    close: tuple[int, ...]

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "ThoughtTags":
        """A tokenizer's tags. InputError where it can't write the closing one."""
        end, tag = tokenizer.think_end_id, tokenizer.thought_tags.end
        close = tokenizer.encode_plain(tag) if end is None else [end]
        if tokenizer.decode(close) != tag:
            raise InputError(f"this model's tokenizer can't write {tag}, which closes a thought")
        return cls(tokenizer, tokenizer.think_start_id, tuple(close))

    def is_open_after(self, prompt: Sequence[int]) -> bool:
        """Whether a completion of `prompt` begins inside a thought."""
        start, end = self.start_id, self.tokenizer.think_end_id
        if start is not None and end is not None:
            return next((token == start for token in reversed(prompt) if token in (start, end)), False)
        return self._ends_with(prompt, self.tokenizer.thought_tags.start)

    def is_closed_after(self, prompt: Sequence[int]) -> bool:
        """Whether the prompt ends with a thought that is over already: thinking is off."""
        return self._ends_with(prompt, self.tokenizer.thought_tags.end)

    def _ends_with(self, prompt: Sequence[int], tag: str) -> bool:
        return self.tokenizer.decode(prompt[-_TAIL:]).rstrip().endswith(tag)


class ThoughtTracker:
    """Follows one completion and says which tokens close its thought, when it is time.

    Where a thought ends is what `ThoughtParser` says, as everywhere. Tokens of the thought are counted from the first
    after the opening tag to the last before the closing one.
    """

    def __init__(self, tags: ThoughtTags, prompt: Sequence[int], budget: int | None = None) -> None:
        """`budget` is `Sampling.thinking_budget`."""
        self._tags, self._budget = tags, budget
        self._may_open = tags.start_id is not None and not tags.is_closed_after(prompt)
        self._parser = ThoughtParser(tags.is_open_after(prompt), tags.tokenizer.thought_tags)
        self._decoder = IncrementalDecoder(tags.tokenizer)
        self._closing: list[int] = []
        self.num_tokens = 0  # of thought
        self.answer_within = ""  # what the last token says after the closing tag, where it holds both
        self._close_when_due()

    @property
    def is_inside(self) -> bool:
        """Whether the next token belongs to the thought."""
        return self._parser.inside_thought

    @property
    def may_open(self) -> bool:
        """Whether the next token may be an opening tag: the prompt opened no thought, and nothing is said yet."""
        return self._may_open and not self.is_inside

    @property
    def start_id(self) -> int | None:
        """The token that opens a thought, if there is one."""
        return self._tags.start_id

    @property
    def forced(self) -> tuple[int, ...]:
        """The tokens that must come next; none where the model goes on by itself."""
        return tuple(self._closing)

    def answer_now(self) -> None:
        """Close the thought at the next token: now where it is open, else as soon as it opens."""
        self._budget = 0
        self._close_when_due()

    def note(self, token: int) -> None:
        """One more token of the completion, drawn or forced."""
        is_thought = self.is_inside and not self._closing
        if self._closing:
            expected = self._closing.pop(0)
            assert token == expected, "a forced token was left out"
        self._may_open = False
        events = self._parser.feed(self._decoder.feed(token))
        self.answer_within = "".join(text for kind, text in events if kind == "answer") if is_thought else ""
        if self.is_inside:
            self.num_tokens += is_thought
            self._close_when_due()

    def _close_when_due(self) -> None:
        is_due = self._budget is not None and self.num_tokens >= self._budget
        if self.is_inside and is_due and not self._closing:
            self._closing = list(self._tags.close)
