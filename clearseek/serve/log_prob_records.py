"""Log-probabilities of an answer's tokens as OpenAI and DeepSeek write them."""

from collections.abc import Sequence
from typing import Any

from clearseek.engine.request import Alternatives, Draw
from clearseek.text.token_bytes import token_bytes
from clearseek.text.tokenizer import Tokenizer

_LEAST = -9999.0  # DeepSeek's word for what is beyond its list; JSON has no minus infinity


class Records:
    """Writes a mapping for each token; a token's text is looked up once."""

    def __init__(self, tokenizer: Tokenizer, as_ids: bool = False) -> None:
        """`as_ids`: a token's text is its id, as vLLM writes them for who wants to tell tokens apart."""
        self._tokenizer, self._as_ids = tokenizer, as_ids
        self._known: dict[int, tuple[str, list[int]]] = {}

    def of(
        self,
        tokens: Sequence[int],
        log_probs: Sequence[float],
        alternatives: Sequence[Alternatives],
        draws: Sequence[Draw] = (),
    ) -> list[dict[str, Any]]:
        """The records of some tokens; `alternatives` and `draws` are theirs, or none where nobody asked."""
        beside = alternatives or [Alternatives((), ())] * len(tokens)
        records = [
            self._record(token, log_prob)
            | {
                "top_logprobs": [
                    self._record(*pair) for pair in zip(other.tokens, other.log_probs, strict=True)
                ]
            }
            for token, log_prob, other in zip(tokens, log_probs, beside, strict=True)
        ]
        for record, draw in zip(records, draws, strict=False):
            record |= {
                "raw_logprob": max(draw.raw_log_prob, _LEAST),
                "processed_logprob": max(draw.processed_log_prob, _LEAST),
                "kept_mass": draw.kept_mass,
            }
        return records

    def text(self, token: int) -> str:
        """A token's text by itself."""
        return self._lookup(token)[0]

    def _record(self, token: int, log_prob: float) -> dict[str, Any]:
        text, raw = self._lookup(token)
        return {"token": text, "logprob": max(log_prob, _LEAST), "bytes": raw}

    def _lookup(self, token: int) -> tuple[str, list[int]]:
        if token not in self._known:
            raw = token_bytes(self._tokenizer, token)
            text = f"token_id:{token}" if self._as_ids else raw.decode("utf-8", "replace")
            self._known[token] = text, list(raw)
        return self._known[token]
