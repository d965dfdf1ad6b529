"""Our half of `rl_vs_trl.py`: the rl stage on a Hugging Face directory until held-out accuracy reaches a target.

CPU seconds are those of this process and its children while sampling, verifying and updating; imports, loading
and evaluation are left out, as on TRL's side.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from clearseek.config.progress import SilentProgress
from clearseek.config.recipe import Evaluation, Problems, Recipe, RlStage
from clearseek.eval.examine import Examiner
from clearseek.ledger.log import Ledger
from clearseek.ledger.timings import Timings
from clearseek.model.checkpoint import load_model
from clearseek.tasks.user import load_problems
from clearseek.tasks.worker import VerifierPool
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.problem_source import ProblemSource
from clearseek.train.context import StageContext
from clearseek.train.rl import PolicyTrainer

# Our best of what was tried, by CPU seconds to the target; docs/log.md says how. Small steps are cheap here: a step
# costs what its tokens do.
SETTINGS: dict[str, Any] = {
    "problems_per_step": 8,
    "group_size": 4,
    "max_refill_rounds": 0,
    "aggregation": "sequence_mean",
    "micro_batch_rows": 16,
    "retire_pass_rate": None,
    "optimizer": {"name": "adamw", "learning_rate": 3e-4},
    "schedule": {"kind": "constant", "warmup": 0.0},
}


def cpu_clock() -> float:
    """CPU seconds of this process, its threads and its children, living ones included."""
    from clearseek.ledger.process import cpu_seconds

    return cpu_seconds()


def train(arguments: argparse.Namespace, stage: RlStage, evaluation: Evaluation) -> dict[str, Any]:
    """Train to the target and return the record that is printed."""
    torch.set_num_threads(arguments.threads)
    tokenizer, model = Tokenizer.load(arguments.start), load_model(arguments.start)
    recipe = Recipe.model_validate(
        {"name": "bench", "seed": arguments.seed, "evaluation": evaluation, "stages": {"rl": stage}}
    )
    with tempfile.TemporaryDirectory() as folder, VerifierPool() as verifiers:
        run_dir = Path(folder)
        context = StageContext(
            recipe, "rl", run_dir, Ledger(run_dir / "ledger.jsonl"), Ledger(run_dir / "samples.jsonl"),
            Timings(run_dir / "timings.jsonl"), SilentProgress(), verifiers, torch.device("cpu"),
            torch.bfloat16 if arguments.dtype == "bfloat16" else torch.float32, arguments.compile == "yes",
            lambda *_: {},
        )  # fmt: skip
        examiner = Examiner(evaluation, arguments.seed, verifiers)
        examiner.problems = load_problems(arguments.eval)
        trainer = PolicyTrainer(context, stage, model, tokenizer)
        return _to_target(
            arguments,
            stage,
            trainer,
            lambda: examiner.examine(context.open_sampler(model, tokenizer), tokenizer).record()["pass_at_1"],
        )


def _to_target(
    arguments: argparse.Namespace, stage: RlStage, trainer: PolicyTrainer, measure: Any
) -> dict[str, Any]:
    curve: list[tuple[float, float]] = [(0.0, measure())]
    spent, wall, step = 0.0, 0.0, 0
    while step < arguments.max_steps and curve[-1][1] < arguments.target:
        started, clock = cpu_clock(), time.perf_counter()
        groups, _ = trainer.sample(step)
        trainer.update(step, groups)
        spent, wall, step = spent + cpu_clock() - started, wall + time.perf_counter() - clock, step + 1
        if step % arguments.eval_every == 0:
            curve.append((round(spent, 3), measure()))
    return {
        "reached": curve[-1][1] >= arguments.target,
        "steps": step,
        "cpu_seconds": round(spent, 3),
        "wall_seconds": round(wall, 3),
        "accuracy_curve": curve,
        "settings": stage.model_dump(mode="json")
        | {"dtype": arguments.dtype, "compile": arguments.compile, "threads": arguments.threads},
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--start", type=Path, required=True, help="Hugging Face directory to start from")
    parser.add_argument("--problems", type=Path, required=True, help="training problems, JSON lines")
    parser.add_argument("--eval", type=Path, required=True, help="held-out problems, JSON lines")
    parser.add_argument("--target", type=float, required=True)
    parser.add_argument("--max-steps", type=int, required=True)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--eval-every", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--compile", choices=("yes", "no"), default="no")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", type=json.loads, default={}, help="rl stage keys to override, as JSON")
    return parser.parse_args()


def main() -> None:
    """Run from the command line."""
    arguments = parse_arguments()
    problems = Problems(path=str(arguments.problems), held_out_path=str(arguments.eval))
    stage = RlStage.model_validate(
        {
            "kind": "rl", "start": str(arguments.start), "steps": arguments.max_steps, "problems": problems,
            "max_completion_tokens": arguments.max_tokens, "sequence_length": 128,
        } | SETTINGS | arguments.set
    )  # fmt: skip
    evaluation = Evaluation(
        problems=problems,
        count=10_000,
        temperature=1.0,
        top_p=1.0,
        max_completion_tokens=arguments.max_tokens,
    )
    ProblemSource(problems, arguments.seed, "check")
    print(json.dumps(train(arguments, stage, evaluation)))


if __name__ == "__main__":
    main()
