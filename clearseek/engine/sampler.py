"""What the stages ask of whatever samples completions: our own engine, or a server that stands in for it."""

from collections.abc import Sequence
from typing import Protocol

from clearseek.engine.request import Completion, Request
from clearseek.model.decoder import Decoder


class Sampler(Protocol):
    """Holds a model's weights and completes prompts with them."""

    def load_weights(self, model: Decoder) -> None:
        """Take over a model's current weights, for every completion from now on."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """The samples of every request, in order, with the log-probabilities they were drawn with."""
