"""Moments to kill a tiny run at, each a `prepare` for `run_in_child`."""

import os
import signal

from clearseek.engine.engine import Engine
from clearseek.engine.slots import Slots
from clearseek.ledger.append import LineFile
from clearseek.recipe import run as recipe_run
from clearseek.tasks.worker import VerifierPool
from clearseek.train import state
from clearseek.train.optimizer import Optimizer
from clearseek.train.rl import PolicyTrainer
from tests.recipe.tiny_run import kill_at


def half_a_line(call):
    """Kill in the middle of writing a line of the run's files."""

    def prepare():
        original, calls = LineFile.write, [0]

        def write(self, line):
            calls[0] += 1
            if calls[0] == call:
                os.write(self._fd, line[: len(line) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            original(self, line)

        LineFile.write = write

    return prepare


MOMENTS = {
    "in the tokenizer stage": half_a_line(5),
    "while a step is recorded": half_a_line(16),
    "while samples are recorded": half_a_line(20),
    "while a resume point is written": kill_at(state, "save_tensors", 2, before=False),
    "before a resume point is renamed": kill_at(os, "replace", 4),
    "after a resume point is renamed": kill_at(os, "replace", 5, before=False),
    "while old resume points are dropped": kill_at(state.shutil, "rmtree", 2),
    "in a pretraining step": kill_at(Optimizer, "_muon_step", 6),
    "in an evaluation on the way": kill_at(Slots, "leave", 2),
    "before a stage is said to be finished": kill_at(recipe_run, "examine_midway", 2, before=False),
    "between stages": kill_at(recipe_run.Run, "_drop_resume_points", 2),
    "in the middle of a rollout": kill_at(Slots, "leave", 8),
    "between a rollout and its verdicts": kill_at(Engine, "generate", 5, before=False),
    "while verdicts are given": kill_at(VerifierPool, "verify_many", 6, before=False),
    "between two updates of a batch": kill_at(Optimizer, "step", 11, before=False),
    "after the last step": kill_at(PolicyTrainer, "run", 1, before=False),
    "before the report": kill_at(recipe_run, "write_report", 1),
}
