"""vLLM's CPU build as a worker, in this one process."""

import os
import sys
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # read when vllm is imported

import torch
import vllm
from lines import Completions, serve
from vllm import LLM, SamplingParams

DTYPES = {"fp32": "float32", "bf16": "bfloat16"}
PLAIN = {"custom_ops": ["none"]}  # uncompiled, its own rotary for CPUs turns DeepSeek's queries wrongly
MAX_LENGTH = 1024
MAX_REQUESTS = 128


class Vllm:
    """A loaded `LLM`, which needs no tokenizer: it is given ids."""

    def __init__(self, tests: bool) -> None:
        """`tests` can't wait for the compiler, want log-probabilities and read configurations that are code."""
        self.tests = tests

    def load(self, path: str, format_name: str) -> dict[str, Any]:
        """Open a directory; its first start compiles, later ones find that on the disk."""
        self.llm = LLM(
            model=path,
            dtype=DTYPES[format_name],
            attention_backend="CPU_MLA" if format_name == "fp32" else None,  # AMX's takes no fp32
            skip_tokenizer_init=True,
            max_model_len=MAX_LENGTH,
            max_num_seqs=MAX_REQUESTS,
            disable_log_stats=True,
            enforce_eager=self.tests,
            trust_remote_code=self.tests,
            compilation_config=PLAIN if self.tests else None,
        )
        return {"version": vllm.__version__, "torch": torch.__version__}

    def generate(
        self, prompts: list[list[int]], max_tokens: int, samples: int, temperature: float, shares: bool
    ) -> Completions:
        """As `lines.Engine` says."""
        sampling = SamplingParams(
            n=samples,
            max_tokens=max_tokens,
            temperature=temperature,
            ignore_eos=True,
            detokenize=False,
            logprobs=0 if self.tests else None,
            skip_reading_prefix_cache=not shares,
        )
        inputs = [{"prompt_token_ids": ids} for ids in prompts]
        found = self.llm.generate(inputs, sampling, use_tqdm=False)
        outputs = [output for request in found for output in request.outputs]
        tokens = [list(output.token_ids) for output in outputs]
        if not self.tests:
            return tokens, None
        return tokens, [
            [step[token].logprob for step, token in zip(output.logprobs, output.token_ids, strict=True)]
            for output in outputs
        ]


if __name__ == "__main__":
    serve(Vllm("tests" in sys.argv[1:]))
