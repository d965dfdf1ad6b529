"""Obeys a constraint: which tokens may come next, by llguidance, which is loaded when a request needs it.

What is wrong with a grammar, or becomes wrong while it is followed, is that request's error and no other's.
"""

import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from clearseek.config.errors import InputError
from clearseek.engine.constraint import Constraint
from clearseek.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    import llguidance

_KEPT = 64  # compiled constraints that are kept: the samples of a group and a server's clients share theirs
_WHITESPACE = r"[ \t\r\n]{0,32}"  # between JSON's parts; without a bound a weak model writes nothing else
_MOST_FORCED = 256  # tokens put there at once
_SECONDS = 10.0  # of processor time that following one completion may take; a token takes 0.1 ms as a rule
_LIMITS: dict[str, Any] = {  # a grammar that explodes is given up within about a second
    "max_items_in_row": 2_000,
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 200_000,
    "step_max_items": 50_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 200_000,
    "verbose_errors": False,
}


class Grammars:
    """Compiles constraints for one tokenizer; made once per model, since reading a vocabulary takes a while."""

    def __init__(self, tokenizer: Tokenizer, end_ids: Collection[int]) -> None:
        """`end_ids` are the tokens that may end a completion that satisfies its grammar."""
        self._library = _library()
        try:
            self._vocabulary = self._library.LLTokenizer(
                tokenizer.to_json(), n_vocab=tokenizer.vocab_size, eos_token=sorted(end_ids)
            )
        except Exception as error:  # the library raises bare ValueError and others for what it can't read
            raise InputError(
                f"constraint: llguidance can't read this model's tokenizer ({_one_line(error)})"
            ) from error
        self._limits = self._library.LLParserLimits(**_LIMITS)
        self._compiled: dict[Constraint, Any] = {}

    def start(self, constraint: Constraint) -> "Grammar":
        """A constraint at its beginning. InputError where it is malformed, too large, or nothing satisfies it."""
        compiled = self._compiled.pop(constraint, None) or self._compile(constraint)
        self._compiled[constraint] = compiled  # the latest last
        while len(self._compiled) > _KEPT:
            del self._compiled[next(iter(self._compiled))]
        return Grammar(compiled.deep_copy(), constraint.kind, self._vocabulary)

    def _compile(self, constraint: Constraint) -> "llguidance.LLMatcher":
        library = self._library.LLMatcher
        # the library gives its defaults to objects only; both say that anything is right
        source = "{}" if constraint.source.strip() == "true" else constraint.source
        try:
            if constraint.kind in ("json_schema", "json_object"):
                grammar = library.grammar_from_json_schema(
                    source, defaults={"whitespace_pattern": _WHITESPACE}
                )
            elif constraint.kind == "regex":
                grammar = library.grammar_from_regex(source)
            else:
                grammar = library.grammar_from_lark(source)
        except ValueError as error:
            raise _malformed(constraint.kind, str(error)) from None
        matcher = library(self._vocabulary, grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            raise _malformed(constraint.kind, matcher.get_error())
        matcher.compute_bitmask()  # whether anything can begin it shows only here
        if matcher.is_error():
            raise _failed(constraint.kind, matcher.get_error())
        return matcher


class Grammar:
    """One completion's way through a grammar. After an `error` it allows only the end."""

    def __init__(
        self, matcher: "llguidance.LLMatcher", kind: str, vocabulary: "llguidance.LLTokenizer"
    ) -> None:
        """`matcher` is this completion's own."""
        self._vocabulary = vocabulary
        self.error: InputError | None = None
        self._matcher, self._kind, self._seconds = matcher, kind, 0.0

    def allowed(self) -> np.ndarray | None:
        """Which tokens may come next, bool [tokenizer's vocabulary, rounded up]; None after an error."""
        bits = self._timed(self._matcher.compute_bitmask)
        if self.error is not None:
            return None
        return np.unpackbits(np.frombuffer(bits, np.uint8), bitorder="little").astype(bool)

    def forced(self) -> list[int]:
        """The tokens that come next where the grammar leaves one text alone."""
        tokens: list[int] = self._timed(self._matcher.compute_ff_tokens)
        return tokens[:_MOST_FORCED] if self.error is None else []

    def note(self, token: int) -> None:
        """One more token, which was allowed or forced."""
        if self.error is None and not self._matcher.is_stopped():
            self._timed(self._matcher.consume_token, token)

    def note_text(self, text: str) -> None:
        """The beginning of the answer, where it shares a token with the end of the thought."""
        for token in self._vocabulary.tokenize_str(text):
            self.note(token)

    def _timed(self, ask: Callable[..., Any], *arguments: int) -> Any:
        """Ask the library; too much time, all in all, is an error like those that it finds itself."""
        started = time.thread_time()
        answer = ask(*arguments)
        self._seconds += time.thread_time() - started
        self._notice_errors()
        return answer

    def _notice_errors(self) -> None:
        if self._matcher.is_error():
            self.error = _failed(self._kind, self._matcher.get_error())
        elif self._seconds > _SECONDS:
            self.error = InputError(
                f"constraint: the {self._kind} took more than {_SECONDS:g} s to follow; make it simpler, for "
                "example with smaller repetition counts"
            )


def _malformed(kind: str, said: str) -> InputError:
    return InputError(f"constraint: the {kind} can't be used: {_one_line(said)}")


def _failed(kind: str, said: str) -> InputError:
    if "NoExtension" in said:
        return InputError(f"constraint: no text satisfies the {kind}")
    return InputError(f"constraint: the {kind} is too complex to follow: {_one_line(said)}")


def _one_line(said: object) -> str:
    return " ".join(str(said).replace("<non-verbose/>", "").split())[:200]


def _library() -> Any:
    try:
        import llguidance
    except ImportError:
        raise InputError(
            "constraint: constrained output needs an extra: pip install 'clearseek[constraints]'"
        ) from None
    return llguidance
