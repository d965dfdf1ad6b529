"""One sample on its way: what it has seen, what it may say next, and what it must.

The sampler reads rows and never changes them; `note` takes every token that became the sample's, drawn or forced.
"""

from collections.abc import Collection, Sequence

import numpy as np

from clearseek.config.errors import InputError
from clearseek.engine.grammar import Grammar, Grammars
from clearseek.engine.penalties import SeenTokens, has_penalties
from clearseek.engine.request import Request, Sampling
from clearseek.engine.sampling_settings import check_request
from clearseek.engine.thinking_budget import ThoughtTags, ThoughtTracker
from clearseek.text.tokenizer import Tokenizer


class RowMaker:
    """Makes rows for one model. What is wrong with a request is told before it runs, and concerns it alone."""

    def __init__(self, vocab_size: int, end_ids: Collection[int], tokenizer: Tokenizer | None = None) -> None:
        """`vocab_size` is the model's; `end_ids` end an answer; without `tokenizer` settings that need text fail."""
        self.vocab_size, self.end_ids, self.tokenizer = vocab_size, frozenset(end_ids), tokenizer
        self._grammars: Grammars | None = None
        self._checked: Sampling | None = None  # settings that were right: many requests share theirs
        self._tags: ThoughtTags | None = None

    def check(self, request: Request) -> None:
        """Raise InputError where a request can't be meant, or its constraint can't be obeyed."""
        sampling = request.sampling
        check_request(request, self.vocab_size, sampling is not self._checked)
        if sampling.is_simple:
            self._checked = sampling
        else:
            self.start(request)

    def start(self, request: Request) -> "Row":
        """The row of one of a checked request's samples, before its first token."""
        sampling, prompt = request.sampling, request.prompt
        if sampling.stop:
            self._required("stop")
        tracker = None
        if sampling.thinking_budget is not None:
            tracker = self.tracker("thinking_budget", prompt, sampling.thinking_budget)
        elif sampling.constraint is not None and sampling.constraint.thinks_first:
            tracker = self.tracker("constraint", prompt, None)
        return Row(sampling, prompt, self, tracker, self._grammar(sampling))

    def tracker(self, setting: str, prompt: Sequence[int], budget: int | None) -> ThoughtTracker:
        """What follows a completion's thought, which `setting` needs."""
        if self._tags is None:
            self._tags = ThoughtTags.of(self._required(setting))
        return ThoughtTracker(self._tags, prompt, budget)

    def _grammar(self, sampling: Sampling) -> Grammar | None:
        if sampling.constraint is None:
            return None
        if self._grammars is None:
            self._grammars = Grammars(self._required("constraint"), self.end_ids)
        return self._grammars.start(sampling.constraint)

    def _required(self, setting: str) -> Tokenizer:
        if self.tokenizer is None:
            raise InputError(f"{setting} needs an engine that was made with a tokenizer")
        return self.tokenizer


class Row:
    """One sample's state. `forced_at` are the places of its tokens that were put there, not drawn."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        maker: RowMaker,
        tracker: ThoughtTracker | None = None,
        grammar: Grammar | None = None,
    ) -> None:
        """A row after its prompt; made by `RowMaker.start`."""
        self.sampling, self.num_tokens = sampling, 0
        self.seen = SeenTokens(prompt) if has_penalties(sampling) else None
        self.forced_at: list[int] = []
        self._prompt, self._maker, self._tracker, self._grammar = prompt, maker, tracker, grammar
        self._is_unchanged = self.seen is None and grammar is None and not sampling.logit_bias
        self._next_forced: tuple[int, ...] | None = None

    @property
    def is_plain(self) -> bool:
        """Whether its next token is drawn from the model's own distribution at the temperature."""
        sampling = self.sampling
        is_whole = (sampling.top_k, sampling.top_p, sampling.min_p) == (0, 1.0, 0.0)
        return is_whole and sampling.temperature > 0 and self._is_unchanged and not self.forced

    @property
    def suits_kernel(self) -> bool:
        """Whether kernels draw its next token, as they do in decoding on: by temperature, top-k and top-p.

        At temperature 0 nothing that is cut off matters.
        """
        is_likely = not (self.sampling.temperature and self.sampling.min_p)
        return is_likely and self._is_unchanged and not self.forced

    @property
    def error(self) -> InputError | None:
        """What went wrong with its constraint; the engine then ends this sample, and no other."""
        return None if self._grammar is None else self._grammar.error

    @property
    def forced(self) -> tuple[int, ...]:
        """The tokens that must come next, as many as are known; the engine may append them all at once."""
        if self._tracker is None and self._grammar is None:
            return ()
        if self._next_forced is None:
            self._next_forced = self._find_forced()
        return self._next_forced

    def answer_now(self, tokens: Sequence[int]) -> None:
        """Close the thought at the next token; `tokens` are the completion so far.

        InputError where the model can't close a thought, the constraint leaves none, or there is no tokenizer.
        """
        if self._grammar is not None and self._tracker is None:
            raise InputError(
                "this request can't be told to answer now: its constraint has no thought before it"
            )
        if self._tracker is None:
            self._tracker = self._maker.tracker("answer now", self._prompt, None)
            for token in tokens:
                self._tracker.note(token)
        self._tracker.answer_now()
        self._next_forced = None

    def allowed(self) -> np.ndarray | None:
        """Which tokens [V] may come next, bool; None: any."""
        if self._grammar is None:
            return None
        ends = np.zeros(self._maker.vocab_size, bool)
        ends[list(self._maker.end_ids)] = True
        if self._is_thinking:
            return ~ends  # a thought may not end the answer before it began
        allowed = self._grammar.allowed()
        if allowed is None:
            return ends
        padded = np.zeros_like(ends)
        count = min(len(padded), len(allowed))
        padded[:count] = allowed[:count]
        if self._tracker is not None and self._tracker.may_open:
            padded[self._tracker.start_id] = True
        return padded

    def note(self, token: int) -> None:
        """One more token, drawn or forced."""
        if self.forced:
            self.forced_at.append(self.num_tokens)
        if self.seen is not None:
            self.seen.note(token)
        was_thinking = self._is_thinking
        if self._tracker is not None:
            self._tracker.note(token)
        if self._grammar is not None:
            if not was_thinking and not self._is_thinking:
                self._grammar.note(token)
            elif self._tracker is not None and (text := self._tracker.answer_within.strip()):
                self._grammar.note_text(text)
        self.num_tokens += 1
        self._next_forced = None

    @property
    def _is_thinking(self) -> bool:
        return self._tracker is not None and self._tracker.is_inside

    def _find_forced(self) -> tuple[int, ...]:
        if self._tracker is not None and (closing := self._tracker.forced):
            return closing
        constraint = self.sampling.constraint
        if self._grammar is None or constraint is None or not constraint.fast_forward or self._is_thinking:
            return ()
        may_open = self._tracker is not None and self._tracker.may_open
        return () if may_open else tuple(self._grammar.forced())
