"""When a completion is over, why, and what its text is up to there."""

from collections.abc import Collection

from clearseek.engine.request import FinishReason, Sampling
from clearseek.engine.stop_text import StopText
from clearseek.text.incremental import IncrementalDecoder
from clearseek.text.tokenizer import Tokenizer


class Ending:
    """Follows one completion token by token until something ends it.

    `finish_reason` is None until then. `stopped_by` is the stop string or token id that did it: None for the end of the
    budget and for the model's own end tokens.
    """

    def __init__(
        self, sampling: Sampling, end_ids: Collection[int], tokenizer: Tokenizer | None = None
    ) -> None:
        """`end_ids` are the model's own; without `tokenizer` there is no text, and may be no stop string."""
        assert tokenizer is not None or not sampling.stop, "stop strings need a tokenizer"
        self.finish_reason: FinishReason | None = None
        self.stopped_by: str | int | None = None
        self.num_tokens = 0
        self._budget = sampling.max_tokens
        self._end_ids = frozenset(() if sampling.ignore_eos else end_ids)
        self._stop_ids = frozenset(sampling.stop_ids)
        self._decoder = None if tokenizer is None else IncrementalDecoder(tokenizer, sampling.shown_ids)
        self._stops = StopText(sampling.stop)

    @property
    def has_text(self) -> bool:
        """Whether what is said is known as text, too."""
        return self._decoder is not None

    def feed(self, token: int) -> str:
        """One more token; gives back the text that is now certain. The token that ends it has none.

        A stop string is cut from the text, the tokens that hold it stay the completion's.
        """
        assert self.finish_reason is None, "the completion has ended"
        self.num_tokens += 1
        if token in self._end_ids or token in self._stop_ids:
            self.finish_reason = "stop"
            self.stopped_by = None if token in self._end_ids else token
            return self._rest()
        text = "" if self._decoder is None else self._stops.feed(self._decoder.feed(token))
        if self._find_stop() or self.num_tokens < self._budget:
            return text
        self.finish_reason = "length"
        text += self._rest()
        return text

    def _rest(self) -> str:
        """What was held back; a stop string may only become whole in it, since half a character is given out."""
        if self._decoder is None:
            return ""
        text = self._stops.feed(self._decoder.close())
        self._find_stop()
        return text + self._stops.close()

    def _find_stop(self) -> bool:
        if self._stops.found is not None:
            self.finish_reason, self.stopped_by = "stop", self._stops.found
        return self._stops.found is not None
