"""Small learners and batches, and the gradient that a step is made of."""

import numpy as np
import torch
from torch import Tensor

from clearseek.config.model import ModelConfig
from clearseek.config.recipe import Optimizer, RlStage, SftStage
from clearseek.text.packing import Rows
from clearseek.train.learner import Learner, MicroBatch, StepResult, micro_batches
from clearseek.train.parallel import whole_tensors
from clearseek.train.supervised import mean_loss
from tests.model.tiny import CONFIGS, tiny_model

CPU = torch.device("cpu")
NO_CLIP = 1e9


def stage_of(config: ModelConfig, name: str = "adamw", clip: float = NO_CLIP, **changes) -> SftStage:
    """A training stage that uses everything there is: multi-token prediction, a strong balance loss."""
    values = {"mtp_loss_weight": 0.3 if config.num_mtp_layers else 0.0, "balance_loss_weight": 0.1} | changes
    optimizer = Optimizer(name=name, gradient_clip=clip)
    return SftStage(**{"kind": "sft", "start": "x", "data": [{"path": "x"}], "optimizer": optimizer} | values)


def rl_stage(**changes) -> RlStage:
    """A reinforcement-learning stage with small numbers."""
    values = {"kind": "rl", "start": "x", "steps": 2, "problems_per_step": 2, "group_size": 4}
    return RlStage(**values | {"sequence_length": 64, "max_completion_tokens": 24} | changes)


def learner_of(name: str, optimizer: str = "adamw", **changes) -> Learner:
    """A learner on a tiny model with weights that matter."""
    config = CONFIGS[name]
    return Learner(tiny_model(config, std=0.05), stage_of(config, optimizer, **changes), torch.float32, False)


def some_rows(num_rows: int = 7, length: int = 17, seed: int = 0, vocab_size: int = 97) -> Rows:
    """Rows of two documents and padding, in which some predictions do not count."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(3, vocab_size, (num_rows, length)).astype(np.int32)
    ends = generator.integers(6, length + 1, (num_rows, 1))
    position = np.arange(length)
    segments = np.where(position < ends, np.where(position < ends // 2, 1, 2), 0).astype(np.int32)
    weights = np.zeros((num_rows, length), np.float32)
    follows = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
    weights[:, 1:] = follows & (generator.random((num_rows, length - 1)) < 0.7)
    return Rows(tokens, segments, weights)


def step_on(learner: Learner, rows: Rows, size: int) -> tuple[dict[str, Tensor], StepResult]:
    """One step of cross-entropy in micro-batches of `size`: the gradient by name, and what was measured."""
    return gradient_of(learner, micro_batches(rows, size, CPU), rows.num_counted_tokens, len(rows))


def gradient_of(
    learner: Learner, batches: list[MicroBatch], num_counted: int, num_rows: int
) -> tuple[dict[str, Tensor], StepResult]:
    """As `step_on`, of micro-batches that are there already."""
    gradients: dict[str, Tensor] = {}
    update = learner.optimizer.step

    def keep_and_update(share: float) -> None:
        for name, parameter in (learner.optimizer.muon | learner.optimizer.adamw).items():
            if parameter.grad is not None:
                gradients[name] = parameter.grad.clone()
        update(share)

    learner.optimizer.step = keep_and_update  # type: ignore[method-assign]
    result = learner.step(batches, mean_loss(num_counted), 1.0, num_rows)
    learner.optimizer.step = update  # type: ignore[method-assign]
    return whole_tensors(gradients, everywhere=True), result


def relative_difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The norm of the difference of two gradients by the norm of the second."""
    assert found.keys() == expected.keys()
    difference = sum(float((found[name] - expected[name]).double().square().sum()) for name in expected)
    return (difference / sum(float(tensor.double().square().sum()) for tensor in expected.values())) ** 0.5
