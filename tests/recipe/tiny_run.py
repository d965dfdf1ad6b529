"""A whole run in about a second, and ways to kill it: real SIGKILL at a chosen moment, in a forked child."""

import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from clearseek.recipe.run import run_recipe

TIMEOUT_SECONDS = 100.0

SMALL_MODEL = """\
[models.small]
family = "qwen3"
hidden_size = 32
num_layers = 1
num_heads = 2
num_key_value_heads = 1
head_dim = 16
intermediate_size = 32
tie_word_embeddings = true
"""
RECIPE = """
name = "tiny"
seed = 1
dtype = "float32"
compile = false

[models.teacher]
family = "deepseek_v3"
hidden_size = 32
num_layers = 2
num_heads = 2
intermediate_size = 32
q_lora_rank = 16
kv_lora_rank = 16
qk_nope_head_dim = 8
qk_rope_head_dim = 8
v_head_dim = 8
num_routed_experts = 4
num_shared_experts = 1
num_experts_per_token = 2
moe_intermediate_size = 16
num_dense_layers = 1
num_mtp_layers = 1
tie_word_embeddings = true

[evaluation]
count = 4
max_completion_tokens = 4
probes = 2
problems = { tasks = ["digits"], levels = [1], languages = ["en"] }

[stages.tokenizer]
kind = "tokenizer"
vocab_size = 320
data = [{ problems = { tasks = ["digits"], levels = [1] }, count = 30 }]

[stages.pretrain]
kind = "pretrain"
start = "teacher"
data = [{ problems = { tasks = ["digits"], levels = [1] }, count = 40 }]
tokens = 2800
batch_rows = 5
micro_batch_rows = 2
sequence_length = 80
mtp_loss_weight = 0.3
checkpoint_every = 2
evaluate_every = 3
optimizer = { name = "muon", learning_rate = 3e-3, muon_learning_rate = 0.02 }

[stages.rl]
kind = "rl"
start = "pretrain"
profile = "r1"
problems = { tasks = ["digits"], levels = [1] }
steps = 3
problems_per_step = 2
group_size = 3
max_completion_tokens = 6
micro_batch_rows = 4
updates_per_batch = 2
sequence_length = 96
checkpoint_every = 1
evaluate = false
sft_weight = 0.1
sft_data = [{ problems = { tasks = ["digits"], levels = [1] }, count = 20 }]
"""

# What must be the same to the byte; the rest of a run directory tells the time.
COMPARED = (
    "ledger.jsonl",
    "samples.jsonl",
    "recipe.toml",
    "checkpoints/**/*",
    "data/**/*",
    "states/**/*",
    "rollouts/**/*",
)


def write_recipe(folder: Path, text: str = RECIPE) -> str:
    """The path of a recipe file."""
    path = folder / "tiny.toml"
    path.write_text(text)
    return str(path)


def contents(run_dir: Path) -> dict[str, bytes]:
    """Every file that does not tell the time."""
    paths = [path for pattern in COMPARED for path in run_dir.glob(pattern) if path.is_file()]
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in sorted(paths)}


def run_in_child(
    recipe: str, out: Path, prepare: Callable[[], Any] | None = None, **settings: Any
) -> str | None:
    """Run a recipe in a forked process after `prepare()`; None when it ended well, its error, or "killed"."""
    report = out.parent / f"{out.name}-{time.monotonic_ns()}.pickle"
    child = os.fork()
    if child == 0:
        _run_and_exit(recipe, out, prepare, settings, report)
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"a run took longer than {TIMEOUT_SECONDS:g} s")
        time.sleep(0.005)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return "killed"
    return pickle.loads(report.read_bytes())


def _run_and_exit(
    recipe: str, out: Path, prepare: Callable[[], Any] | None, settings: Any, report: Path
) -> None:
    result = None
    try:
        torch.set_num_threads(1)
        if prepare is not None:
            prepare()
        run_recipe(recipe, out=out, device="cpu", **settings)
    except BaseException:
        result = traceback.format_exc()
        raise
    finally:
        report.write_bytes(pickle.dumps(result))
        os._exit(0)


def kill_at(owner: Any, name: str, call: int, before: bool = True) -> Callable[[], None]:
    """A `prepare` that ends the process with SIGKILL at the `call`-th call of `owner.name`, or after it."""

    def prepare() -> None:
        original, calls = getattr(owner, name), [0]

        def counting(*arguments: Any, **keywords: Any) -> Any:
            calls[0] += 1
            if calls[0] == call and before:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*arguments, **keywords)
            if calls[0] == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, counting)

    return prepare
