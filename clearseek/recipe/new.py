"""A recipe for a user's own model and problems: both are looked at, and defaults chosen that fit them."""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from clearseek.config.errors import InputError, RunError
from clearseek.config.load import parse_recipe
from clearseek.config.model import ModelConfig
from clearseek.config.recipe import Recipe
from clearseek.engine.rollout import encode_problem
from clearseek.ledger.machine import memory_bytes
from clearseek.model.checkpoint import load_config, resolve_model
from clearseek.recipe.memory import memory_of
from clearseek.recipe.workload import work_of
from clearseek.tasks.problem import Problem
from clearseek.tasks.user import load_problems
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.flops import num_parameters

# Up to how many parameters: the rate that policy gradients bear, and room to reason (tokens of a completion).
# The small ones are from clearseek's own runs, the large ones R1's 3e-6 and the 1e-6 that is usual at 7B.
_BY_SIZE = (
    (5e6, 3e-4, 96),
    (5e7, 1e-4, 256),
    (3e8, 2e-5, 512),
    (3e9, 3e-6, 768),
    (float("inf"), 1e-6, 1024),
)
_LEAST_COMPLETION = 16  # tokens; a context that leaves less is too small for the problems
_MEMORY_SHARE = 0.6  # of the machine that a training step may take
_ADAPTER_RATE = (
    10  # times the rate of full training, which adapters bear (Schulman et al. 2025, LoRA Without Regret)
)
_PASSES = 2  # over the training problems
_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


@dataclass(frozen=True)
class _Choices:
    """What is written into the recipe."""

    name: str
    base: str
    data: str
    learning_rate: float
    budget: int
    sequence_length: int
    micro_batch_rows: int
    problems_per_step: int
    steps: int
    num_training: int
    num_held_out: int
    lora: bool

    @property
    def passes(self) -> float:
        """How often every training problem comes up."""
        return self.steps * self.problems_per_step / self.num_training

    def text(self) -> str:
        """The recipe as commented TOML."""
        every, count = max(self.steps // 5, 1), min(self.num_held_out, 300)
        base, data = _quoted(self.base), _quoted(self.data)
        rate = self.learning_rate * (_ADAPTER_RATE if self.lora else 1)
        return f"""\
# Reinforcement learning of your own model on your own problems, as `clearseek new` wrote it.
#   clearseek run {self.name}.toml --dry-run    says what it would take
#   clearseek run {self.name}.toml              runs it; the same command continues a run that was stopped
#   clearseek doctor runs/{self.name}           says why a reward is flat
name = {_quoted(self.name)}
description = {_quoted(f"{Path(self.base).name} on {Path(self.data).name}")}
seed = 1

# {self.num_held_out} problems, chosen by their content, are never trained on; they measure what was learnt.
[evaluation]
problems = {{ path = {data} }}
count = {count}
temperature = 0.6
max_completion_tokens = {self.budget}

# What the model can do before.
[stages.before]
kind = "eval"
start = {base}

[stages.rl]
kind = "rl"
start = {base}
problems = {{ path = {data} }}
# "best" is what the evidence since R1 says, "r1" what DeepSeek published
profile = "best"
# each takes {self.problems_per_step} of {self.num_training} problems: about {self.passes:.0f} passes over all
steps = {self.steps}
problems_per_step = {self.problems_per_step}
# answers to each problem, which are compared with each other
group_size = 8
# room to reason; raise it if `clearseek doctor` says that answers are cut short
max_completion_tokens = {self.budget}
# the longest prompt and a whole completion fit a row
sequence_length = {self.sequence_length}
# rows computed at a time; lower it where memory runs out, the result stays the same
micro_batch_rows = {self.micro_batch_rows}
evaluate_every = {every}
checkpoint_every = {every}
optimizer = {{ name = "adamw", learning_rate = {rate:g} }}
schedule = {{ kind = "constant", warmup = 0.05 }}
{_LORA if self.lora else ""}"""


_LORA = """\
# a low-rank adapter learns, the base stays as it is; left merged, and alone in PEFT's format in checkpoints/rl/adapter.
# targets are published names such as "q_proj"; "all-linear" stands for every linear map of the layers
lora = { rank = 16, alpha = 32.0, targets = ["all-linear"] }
"""


def _quoted(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False)


def new_recipe(name: str, base: Path, data: Path, out: Path | None = None, lora: bool = False) -> Path:
    """Write a recipe that trains the model at `base` on the problems in `data`; returns where it lies.

    `base` is a run, a checkpoint or a Hugging Face directory, `data` JSON lines; with `lora` a low-rank adapter learns
    instead of every weight. Raises InputError for the first thing that is wrong with either, for prompts that don't
    fit the model, and where the file exists.
    """
    if not _NAME.match(name):
        raise InputError(
            f"name {name!r}: use letters, digits, '.', '_' and '-', beginning with one of the first"
        )
    path = Path(out) if out is not None else Path(f"{name}.toml")
    if path.exists():
        raise InputError(f"{path} is there already; give another --out or name")
    directory = resolve_model(Path(base))
    config, tokenizer = load_config(directory), Tokenizer.load(directory)
    tokenizer.require_room(config.vocab_size, directory)
    choices = _choose(name, Path(base), Path(data), config, tokenizer, load_problems(Path(data)), lora)
    text = choices.text()
    parse_recipe(tomllib.loads(text), str(path))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"cannot write {path}: {error.strerror}") from None
    return path


def _choose(
    name: str,
    base: Path,
    data: Path,
    config: ModelConfig,
    tokenizer: Tokenizer,
    problems: list[Problem],
    lora: bool,
) -> _Choices:
    num_held_out = sum(problem.held_out for problem in problems)
    num_training = len(problems) - num_held_out
    if not num_held_out or not num_training:
        raise InputError(
            f"{data}: {len(problems)} problems are too few to keep one in eight for evaluation; add problems"
        )
    longest = max(len(encode_problem(tokenizer, problem)) for problem in problems)
    room = config.max_position_embeddings - longest
    if room < _LEAST_COMPLETION:
        raise InputError(
            f"{data}: its longest prompt has {longest} tokens, the context of {base} holds "
            f"{config.max_position_embeddings}; shorten the problems or take another model"
        )
    rate, most = next(chosen[1:] for chosen in _BY_SIZE if num_parameters(config) <= chosen[0])
    budget, problems_per_step = min(most, room), min(32, num_training)
    steps = min(max(_PASSES * num_training // problems_per_step, 20), 200)
    length = -(-(longest + budget) // 32) * 32
    shared = (rate, budget, length)
    counts = (problems_per_step, steps, num_training, num_held_out)
    place = (name, base.as_posix(), data.as_posix())
    for rows in (32, 16, 8, 4, 2, 1):
        choices = _Choices(*place, *shared, rows, *counts, lora)
        if rows == 1 or _fits(choices):
            break
    return choices


def _fits(choices: _Choices) -> bool:
    """Whether a training step leaves enough of this machine's memory; where that is unknown, it does."""
    available = memory_bytes()
    recipe: Recipe = parse_recipe(tomllib.loads(choices.text()), choices.name)
    needed = memory_of(recipe, work_of(recipe, "rl")).total
    return available is None or needed <= _MEMORY_SHARE * available
