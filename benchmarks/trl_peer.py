"""TRL's half of `rl_vs_trl.py`: `GRPOTrainer` until the held-out accuracy reaches a target.

Starts from a Hugging Face directory, runs in `.venv-peers` and prints one JSON object. CPU seconds are those
of this process and its children inside `GRPOTrainer.train()`; imports, loading and evaluation are left out,
as on our side. Apart because nothing else here may import TRL.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

# Read when transformers and tokenizers are first imported: nothing is fetched while the clock runs.
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import datasets
import torch
import transformers
import trl

from clearseek.tasks.verify import Verdict, load_verifier, verify

Problem = dict[str, str]
Reward = Callable[..., list[float]]
EVALUATION_BATCH = 256
PACKAGES = ("torch", "trl", "transformers", "accelerate")

# TRL's best of what was tried, by CPU seconds per completion with the alternatives run in turn in one
# process, on a dense and a latent+MoE model of a million parameters. The figures stand in docs/log.md.
MODEL_SETTINGS: dict[str, Any] = {
    # Master weights; the products run in bfloat16 (below). Weights in bfloat16 would lose small updates.
    "dtype": "float32",
    # Beats SDPA in bfloat16, whose flash backward is slow on CPUs and eats what it saves in decoding.
    "attn_implementation": "eager",
    # Experts stay at transformers' own default, the grouped product, which beats its loop over experts;
    # `batched_mm` copies a weight matrix for every token.
}
TRAINER_SETTINGS: dict[str, Any] = {
    # Decoding goes on until the longest row ends, however many rows there are: a large batch shares that. 64 rows
    # reach a low target sooner and a high one later or never; 256 cost twice as much a step and save few steps.
    "num_generations": 8,
    "generation_batch_size": 128,
    # The backward pass is cheaper where a slice's activations stay in the cache. One update for each
    # generation batch, so that sampling is on-policy and old log-probabilities need no second forward pass.
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 4,
    # transformers' plain `generate` with its growing cache. Left out because slower here: continuous batching
    # (several times), a static cache (computes the full width at every step), torch.compile (no faster once
    # compiled, and over a minute to compile). vLLM has no CPU build among the versions that TRL supports.
    "use_transformers_continuous_batching": False,
    "torch_compile": False,
    "bf16": True,
    # TRL's default trades time for memory; here the memory is plenty.
    "gradient_checkpointing": False,
    # The policy gradient as on our side: centred rewards, mean over the batch's tokens, no reference model.
    "beta": 0.0,
    "loss_type": "dapo",
    "scale_rewards": "none",
    "num_iterations": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "learning_rate": 4e-4,  # 3e-4 is slower, 5e-4 and above stall below the target
    "lr_scheduler_type": "constant",
    "weight_decay": 0.0,
    "max_grad_norm": 1.0,
    # Nothing beside the training itself.
    "use_cpu": True,
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": False,
    "save_strategy": "no",
    "eval_strategy": "no",
    "logging_strategy": "no",
    "report_to": "none",
    "disable_tqdm": True,
}


class Meter:
    """CPU and wall seconds of the stretches spent inside `running()` and outside `paused()`."""

    def __init__(self) -> None:
        self.cpu_seconds = 0.0
        self.wall_seconds = 0.0
        self._start = (0.0, 0.0)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Count what happens inside."""
        self._start = (_cpu_clock(), time.perf_counter())
        try:
            yield
        finally:
            self._stop()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what happens inside (within a `running()` block)."""
        self._stop()
        try:
            yield
        finally:
            self._start = (_cpu_clock(), time.perf_counter())

    def _stop(self) -> None:
        self.cpu_seconds += _cpu_clock() - self._start[0]
        self.wall_seconds += time.perf_counter() - self._start[1]


class Evaluation(transformers.TrainerCallback):
    """Measures held-out accuracy every `every` steps off the clock and stops the trainer at the target."""

    def __init__(self, measure: Callable[[], float], meter: Meter, target: float, every: int) -> None:
        self.measure = measure
        self.meter = meter
        self.target = target
        self.every = every
        self.curve: list[tuple[float, float]] = []

    @property
    def reached(self) -> bool:
        """Whether the last evaluation stood at the target or above."""
        return bool(self.curve) and self.curve[-1][1] >= self.target

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Record where the start checkpoint stands."""
        self._evaluate(control, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Evaluate every `every` optimiser steps."""
        if state.global_step % self.every == 0:
            self._evaluate(control, state.global_step)

    def _evaluate(self, control: Any, step: int) -> None:
        with self.meter.paused():
            self.curve.append((round(self.meter.cpu_seconds, 3), self.measure()))
            _say(f"step {step}: {self.curve[-1][1]:.3f} after {self.curve[-1][0]:.1f} CPU s")
        control.should_training_stop = control.should_training_stop or self.reached


class Grader:
    """Scores as clearseek does: 1 if the completion ended and what follows the thought is correct, else 0."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer

    def score(self, completion_ids: Sequence[int], verifier: str, answer: str) -> float:
        """Return 1.0 or 0.0; a completion without its end token counts as wrong."""
        if not completion_ids or completion_ids[-1] != self.tokenizer.eos_token_id:
            return 0.0
        # TRL's own text lacks the special tokens, `</think>` perhaps among them: decode again with them.
        text = self.tokenizer.decode(completion_ids[:-1], skip_special_tokens=False)
        _, closed, candidate = text.partition("</think>")
        return float(bool(closed) and verify(verifier, candidate.strip(), answer) is Verdict.correct)

    def reward(self, completion_ids: Any, verifier: Any, answer: Any, **_: Any) -> list[float]:
        """The reward function in the form that TRL calls: one list a column."""
        return [self.score(*row) for row in zip(completion_ids, verifier, answer, strict=True)]


def held_out_accuracy(
    model: Any, grader: Grader, problems: Sequence[Problem], max_tokens: int, temperature: float
) -> float:
    """Return the share of `problems` answered correctly, one answer each (greedy at temperature 0).

    Seeded and apart from the training stream, so that evaluating more often trains the same model.
    """
    sampling = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
    ends = {"pad_token_id": grader.tokenizer.pad_token_id, "eos_token_id": grader.tokenizer.eos_token_id}
    config = transformers.GenerationConfig(max_new_tokens=max_tokens, top_k=0, top_p=1.0, **sampling, **ends)
    was_training = model.training
    model.eval()
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        chunks = [problems[i : i + EVALUATION_BATCH] for i in range(0, len(problems), EVALUATION_BATCH)]
        correct = sum(_count_correct(model, grader, chunk, config) for chunk in chunks)
    model.train(was_training)
    return correct / len(problems)


def _count_correct(model: Any, grader: Grader, problems: Sequence[Problem], config: Any) -> int:
    prompts = [problem["prompt"] for problem in problems]
    inputs = grader.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    output = model.generate(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], generation_config=config
    )
    completions = output[:, inputs["input_ids"].shape[1] :].tolist()
    eos = grader.tokenizer.eos_token_id
    finished = [row[: row.index(eos) + 1] if eos in row else row for row in completions]
    scores = [
        grader.score(row, problem["verifier"], problem["answer"])
        for row, problem in zip(finished, problems, strict=True)
    ]
    return int(sum(scores))


def load_problems(path: Path) -> list[Problem]:
    """Read JSON lines with `prompt` (rendered, up to the opened thought), `answer` and `verifier`."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [{key: row[key] for key in ("prompt", "answer", "verifier")} for row in rows]


def load_start(directory: Path, settings: dict[str, Any], prompt: str) -> tuple[Any, Any]:
    """Open the model and its tokenizer; exits where `prompt` would not be tokenized as on our side."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory, padding_side="left")
    begins = tokenizer(prompt)["input_ids"].count(tokenizer.bos_token_id)
    if begins != 1:
        raise SystemExit(
            f"error: {directory}: a rendered prompt has {begins} begin tokens once encoded, not 1"
        )
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        raise SystemExit(f"error: {directory}: the tokenizer needs a pad token of its own")
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, **settings)
    return model, tokenizer


def train(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train to the target and return the record that is printed."""
    problems, held_out = load_problems(arguments.problems), load_problems(arguments.eval)
    for verifier in sorted({problem["verifier"] for problem in problems}):
        load_verifier(verifier)
    model, tokenizer = load_start(
        arguments.start, MODEL_SETTINGS | arguments.model_set, problems[0]["prompt"]
    )
    grader, meter = Grader(tokenizer), Meter()

    def measure() -> float:
        return held_out_accuracy(model, grader, held_out, arguments.max_tokens, arguments.eval_temperature)

    evaluation = Evaluation(measure, meter, arguments.target, arguments.eval_every)
    settings = trainer_settings(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trl.GRPOTrainer(
            model=model,
            reward_funcs=grader.reward,
            args=trl.GRPOConfig(output_dir=scratch, **settings),
            train_dataset=datasets.Dataset.from_list(problems),
            processing_class=tokenizer,
            callbacks=[evaluation],
        )
        trainer.remove_callback(transformers.PrinterCallback)  # standard output is for the record
        with meter.running():
            trainer.train()
    settings |= {"model": MODEL_SETTINGS | arguments.model_set, "threads": torch.get_num_threads()}
    return _record(evaluation, meter, trainer.state, settings)


def trainer_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of `GRPOConfig` for this run."""
    budget = {"max_completion_length": arguments.max_tokens, "max_steps": arguments.max_steps}
    return TRAINER_SETTINGS | budget | {"seed": arguments.seed} | arguments.set


def _record(evaluation: Evaluation, meter: Meter, state: Any, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "reached": evaluation.reached,
        "steps": state.global_step,
        # Up to the last evaluation: what tearing the trainer down costs is no training.
        "cpu_seconds": evaluation.curve[-1][0] if evaluation.reached else round(meter.cpu_seconds, 3),
        "wall_seconds": round(meter.wall_seconds, 3),
        "accuracy_curve": evaluation.curve,
        "tokens": state.num_input_tokens_seen,
        "settings": settings,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _cpu_clock() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--start", type=Path, required=True, help="Hugging Face directory to start from")
    add("--problems", type=Path, required=True, help="training problems, JSON lines")
    add("--eval", type=Path, required=True, help="held-out problems, JSON lines")
    add("--target", type=float, required=True, help="held-out accuracy at which to stop")
    add("--max-steps", type=int, required=True)
    add("--max-tokens", type=int, default=96, help="completion tokens")
    add("--eval-every", type=int, default=1, help="steps between evaluations")
    add("--eval-temperature", type=float, default=1.0, help="0 is greedy")
    # A second thread shortens the wait but spins between operations this small: more CPU seconds, not fewer.
    add("--threads", type=int, default=1)
    add("--seed", type=int, default=0)
    add("--set", type=json.loads, default={}, help="GRPOConfig fields to override, as JSON")
    add("--model-set", type=json.loads, default={}, help="from_pretrained arguments to override, as JSON")
    add("--json", type=Path, help="write the record here as well as to standard output")
    return parser.parse_args()


def main() -> None:
    """Run from the command line."""
    arguments = parse_arguments()
    torch.set_num_threads(arguments.threads)
    result = json.dumps(train(arguments))
    print(result)
    if arguments.json:
        arguments.json.write_text(result + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
