"""Stand-ins below the rollout: an engine that answers as told, and verifiers in this process."""

from collections.abc import Callable, Sequence

from clearseek.engine.request import Completion, Request
from clearseek.tasks.problem import Problem
from clearseek.tasks.verify import Verdict, verify
from clearseek.text.tokenizer import Tokenizer

CORPUS = (
    "Let me add: 12 + 5 = 17. The answer is 17, so I am sure.\n",
    "먼저 더하면 17 입니다.\n",
    "首先计算，答案是十七。\n",
)


def small_tokenizer() -> Tokenizer:
    """320 tokens, three languages."""
    return Tokenizer.train(CORPUS * 20, 320)


class ScriptedEngine:
    """Completes prompts with texts instead of a model; a text that ends in … was cut by the budget."""

    def __init__(self, tokenizer: Tokenizer, answer: Callable[[Request, int], str]) -> None:
        self.tokenizer, self.answer = tokenizer, answer
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """What the script says for every sample of every request."""
        self.requests += requests
        return [[self._complete(request, i) for i in range(request.num_samples)] for request in requests]

    def _complete(self, request: Request, sample: int) -> Completion:
        text = self.answer(request, sample)
        cut = text.endswith("…")
        tokens = self.tokenizer.encode(text.removesuffix("…")) + ([] if cut else [self.tokenizer.eos_id])
        log_probs = [-0.01 * (i + 1) for i in range(len(tokens))]
        return Completion(tokens, log_probs, "length" if cut else "stop", 0.5)


class PlainVerifiers:
    """`VerifierPool.verify_many` without a process; `errors` are candidates whose verifier breaks."""

    def __init__(self, errors: Sequence[str] = ()) -> None:
        self.errors = errors
        self.asked: list[tuple[str, str, str]] = []

    def verify_many(self, items: Sequence[tuple[str, str, str]]) -> list[Verdict]:
        """A verdict for each item."""
        self.asked += items
        return [Verdict.error if item[1] in self.errors else verify(*item) for item in items]


def problem(prompt: str = "12 + 5?", answer: str = "17", language: str = "en") -> Problem:
    """A sum to do."""
    return Problem("sums", language, 1, prompt, answer, "number")
