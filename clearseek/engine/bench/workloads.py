"""What is asked of every engine: the same random token ids, other ones in every round, so that no cache knows them."""

import random
from dataclasses import dataclass

FIRST_PLAIN_ID = 7  # below are the tokenizer's special tokens


@dataclass(frozen=True)
class Workload:
    """`num_prompts` prompts of `prompt_tokens`, the first `shared_tokens` of them common, and what follows each."""

    num_prompts: int
    prompt_tokens: int
    max_tokens: int
    shared_tokens: int = 0
    samples: int = 1
    temperature: float = 0.0
    shares: bool = True  # whether prefix caches of others than ours are on

    @property
    def counted_tokens(self) -> int:
        """What a rate counts: generated tokens, or read ones where only one is generated."""
        if self.max_tokens == 1:
            return self.num_prompts * self.prompt_tokens
        return self.num_prompts * self.samples * self.max_tokens

    def prompts(self, vocab_size: int, seed: int) -> list[list[int]]:
        """Token ids of a round."""
        draw = random.Random(seed)

        def ids(count: int) -> list[int]:
            return [draw.randrange(FIRST_PLAIN_ID, vocab_size) for _ in range(count)]

        shared = ids(self.shared_tokens)
        return [shared + ids(self.prompt_tokens - self.shared_tokens) for _ in range(self.num_prompts)]


WORKLOADS: dict[str, Workload] = {
    "one_stream": Workload(num_prompts=1, prompt_tokens=16, max_tokens=128),
    "streams_16": Workload(num_prompts=16, prompt_tokens=16, max_tokens=64, shares=False),
    "prefill_512": Workload(num_prompts=1, prompt_tokens=512, max_tokens=1),
    "shared_prefix": Workload(
        num_prompts=16, prompt_tokens=416, max_tokens=32, shared_tokens=400, shares=False
    ),
    "shared_prefix_cached": Workload(num_prompts=16, prompt_tokens=416, max_tokens=32, shared_tokens=400),
    "rl_group": Workload(num_prompts=1, prompt_tokens=64, max_tokens=64, samples=16, temperature=1.0),
    "batch_128": Workload(num_prompts=128, prompt_tokens=16, max_tokens=64, temperature=1.0, shares=False),
}
COLD_START = Workload(num_prompts=1, prompt_tokens=16, max_tokens=1)
