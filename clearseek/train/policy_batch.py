"""Sampled groups as packed rows: tokens, and for each its advantage, weight, completion, log-probability."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from clearseek.config.errors import InputError
from clearseek.config.recipe import RlStage
from clearseek.engine.rollout import Group
from clearseek.text.packing import Rows, pack_arrays
from clearseek.train.learner import MicroBatch, micro_batches, split_rows
from clearseek.train.policy_losses import token_weight


@dataclass
class PolicyBatch:
    """Rows and, at every position of them, numbers about the token there, each [N, T + 1]."""

    rows: Rows
    extras: dict[str, np.ndarray]
    num_tokens: int  # sampled tokens that count

    def micro_batches(self, size: int, device: torch.device, fill: bool = False) -> list[MicroBatch]:
        """Micro-batches of `size` rows; extras are those of the predicted tokens."""
        batches = micro_batches(self.rows, size, device, fill)
        for name, values in self.extras.items():
            for batch, part in zip(batches, split_rows(values, size, fill), strict=True):
                batch.extras[name] = part[:, 1:].to(device)
        return batches


def pack_groups(
    groups: Sequence[Group], advantages: np.ndarray, values: np.ndarray, stage: RlStage, pad_id: int
) -> PolicyBatch:
    """Pack every judged completion (NaN in `values`: left out) behind its prompt.

    Raises InputError when a prompt and its completion do not fit `sequence_length`.
    """
    chosen = [
        (group.prompt, item.completion, advantages[i, j])
        for i, group in enumerate(groups)
        for j, item in enumerate(group.judged)
        if not np.isnan(values[i, j])
    ]
    longest = max(len(prompt) + len(completion.tokens) for prompt, completion, _ in chosen)
    if longest > stage.sequence_length + 1:
        raise InputError(
            f"a prompt with its completion holds {longest} tokens, more than sequence_length "
            f"({stage.sequence_length}); raise it or lower max_completion_tokens"
        )
    prompts = np.array([len(prompt) for prompt, _, _ in chosen])
    lengths = np.array([len(completion.tokens) for _, completion, _ in chosen])
    offsets = np.concatenate([[0], np.cumsum(prompts + lengths)])
    layout = pack_arrays(np.arange(offsets[-1]), offsets, prompts, stage.sequence_length + 1)
    return _laid_out(chosen, prompts, lengths, layout, stage, pad_id)


def _laid_out(
    chosen: list, prompts: np.ndarray, lengths: np.ndarray, layout: Rows, stage: RlStage, pad_id: int
) -> PolicyBatch:
    """Gather flat per-token numbers to the places that `layout` gave them; its tokens are flat indices."""
    num_tokens, num_sequences = int(lengths.sum()), len(chosen)
    weights = [
        token_weight(stage.aggregation, int(n), num_tokens, num_sequences, stage.max_completion_tokens)
        for n in lengths
    ]
    flat_tokens = np.fromiter(chain.from_iterable((*p, *c.tokens) for p, c, _ in chosen), np.int32)
    sampled = np.concatenate([[0.0] * len(p) + c.log_probs for p, c, _ in chosen]).astype(np.float32)
    sequences = np.repeat(np.arange(num_sequences), prompts + lengths)
    real, counted = layout.segments > 0, layout.weights > 0
    place, sequence = layout.tokens, sequences[layout.tokens]
    rows = Rows(np.where(real, flat_tokens[place], pad_id).astype(np.int32), layout.segments, layout.weights)
    per_sequence = np.array([advantage for _, _, advantage in chosen], np.float32)
    extras = {
        "advantages": per_sequence[sequence] * counted,
        "token_weights": np.array(weights, np.float32)[sequence] * counted,
        "sampled_log_probs": sampled[place] * counted,
        "sequences": sequence.astype(np.int64),
    }
    return PolicyBatch(rows, extras, num_tokens)
