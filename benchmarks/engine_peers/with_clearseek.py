"""clearseek's engine as a worker, by its Python interface."""

import os
from typing import Any

import torch
from lines import Completions, Unsupported, serve

import clearseek
from clearseek.engine.bench.shapes import OUR_FORMATS
from clearseek.engine.engine import Engine
from clearseek.engine.mixed_formats import read_formats
from clearseek.engine.request import Request, Sampling
from clearseek.model.log_probs import log_probs_from_logits


class Clearseek:
    """A loaded model and an engine over it."""

    def load(self, path: str, format_name: str) -> dict[str, Any]:
        """Open a directory; no token ends a completion. A form that only kernels have is refused without them."""
        dtype, kept = OUR_FORMATS[format_name]
        self.model = clearseek.load(path, dtype, os.environ.get("CLEARSEEK_BENCH_DEVICE", "cpu"))
        self.engine = Engine(self.model.decoder, (), self.model.dtype, copies=False, form=read_formats(kept))
        if self.engine.form.is_quantised and self.engine.why_plain:
            raise Unsupported(self.engine.why_plain)
        return {"version": clearseek.__version__, "torch": torch.__version__}

    def generate(
        self, prompts: list[list[int]], max_tokens: int, samples: int, temperature: float, shares: bool
    ) -> Completions:
        """As `lines.Engine` says; what it shares of prompts it always does."""
        sampling = Sampling(temperature, 1.0, max_tokens)
        requests = [Request(tuple(ids), key, samples, sampling) for key, ids in enumerate(prompts)]
        completions = [completion for group in self.engine.generate(requests) for completion in group]
        return [one.tokens for one in completions], [one.log_probs for one in completions]

    @torch.no_grad()
    def score(self, prompt: list[int], completion: list[int]) -> dict[str, Any]:
        """What the trainer's forward pass says of a completion's tokens: their log-probabilities."""
        logits = self.model.logits([prompt + completion])[0, len(prompt) - 1 : -1]
        chosen = log_probs_from_logits(logits, 1.0).gather(-1, torch.tensor(completion)[:, None])
        return {"log_probs": chosen[:, 0].tolist()}


if __name__ == "__main__":
    serve(Clearseek())
