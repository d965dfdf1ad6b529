"""transformers as a worker: `generate`, or its continuous batching (`generate_batch`)."""

import sys
from typing import Any

import torch
import transformers
from lines import Completions, Unsupported, serve
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PAGE_TOKENS = 256
NEVER = -1  # no token ends a completion


class Transformers:
    """A model of theirs. All prompts of a question have one length, so that nothing is padded."""

    def __init__(self, way: str) -> None:
        self.way = way

    def load(self, path: str, format_name: str) -> dict[str, Any]:
        """Open a directory."""
        self.model = AutoModelForCausalLM.from_pretrained(path, dtype=DTYPES[format_name]).eval()
        self.model.generation_config.eos_token_id = None
        return {"version": transformers.__version__, "torch": torch.__version__}

    def generate(
        self, prompts: list[list[int]], max_tokens: int, samples: int, temperature: float, shares: bool
    ) -> Completions:
        """As `lines.Engine` says, without log-probabilities."""
        settings: dict[str, Any] = {"max_new_tokens": max_tokens, "do_sample": temperature > 0}
        if temperature > 0:
            settings |= {"temperature": temperature, "top_k": 0, "top_p": 1.0}
        if self.way == "generate_batch":
            return self._batch([ids for ids in prompts for _ in range(samples)], settings, shares), None
        if shares and len(prompts) > 1:
            raise Unsupported("generate has no prefix cache")
        inputs = torch.tensor(prompts)
        found = self.model.generate(
            inputs,
            attention_mask=torch.ones_like(inputs),
            num_return_sequences=samples,
            pad_token_id=0,
            **settings,
        )
        return found[:, inputs.shape[1] :].tolist(), None

    def _batch(self, prompts: list[list[int]], settings: dict[str, Any], shares: bool) -> list[list[int]]:
        """Every prompt as a request of its own; the cache holds what they need, not a share of the memory."""
        pages = -(-(len(prompts[0]) + settings["max_new_tokens"]) // PAGE_TOKENS)
        found = self.model.generate_batch(
            inputs=prompts,
            generation_config=GenerationConfig(eos_token_id=NEVER, pad_token_id=0, **settings),
            continuous_batching_config=ContinuousBatchingConfig(
                page_size=PAGE_TOKENS,
                num_blocks=len(prompts) * pages + 1,
                max_batch_tokens=2048,
                allow_block_sharing=shares,
            ),
        )
        numbers = {int(name.removeprefix("req_")): name for name in found}
        return [list(found[numbers[number]].generated_tokens) for number in sorted(numbers)]


if __name__ == "__main__":
    serve(Transformers(sys.argv[1]))
