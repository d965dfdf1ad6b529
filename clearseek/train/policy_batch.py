"""Sampled groups as packed rows: tokens, and for each its advantage, weight, completion, log-probability.

The completions of a group share their prompt: a document is the prompt without its end, once, and behind it for
each completion a branch that begins with the prompt's end and sees the shared part and itself alone. What the
update computes is what it would if each completion stood behind a prompt of its own; a router counts the tokens
that are really computed, a shared prompt once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from clearseek.config.errors import InputError
from clearseek.config.recipe import RlStage
from clearseek.engine.request import Completion
from clearseek.engine.rollout import Group
from clearseek.text.packing import Rows, fill_bins, pack_arrays
from clearseek.train.learner import MicroBatch, micro_batches, split_rows
from clearseek.train.policy_losses import token_weight


@dataclass
class PolicyBatch:
    """Rows and, at every position of them, numbers about the token there, each [N, T + 1].

    Segments of `rows` are shared parts and branches, each with a number of its own; `parents` says which segment
    each token's own continues (its own: none).
    """

    rows: Rows
    parents: np.ndarray
    extras: dict[str, np.ndarray]
    num_tokens: int  # sampled tokens that count

    def micro_batches(self, size: int, device: torch.device, fill: bool = False) -> list[MicroBatch]:
        """Micro-batches of `size` rows; extras are those of the predicted tokens."""
        batches = micro_batches(self.rows, size, device, fill)
        for batch, part in zip(batches, split_rows(self.parents, size, fill), strict=True):
            batch.parents = part.to(device)
        for name, values in self.extras.items():
            for batch, part in zip(batches, split_rows(values, size, fill), strict=True):
                batch.extras[name] = part[:, 1:].to(device)
        return batches


@dataclass(frozen=True)
class _Part:
    """One segment to be packed: a shared part, or a branch with its completion."""

    prompt: tuple[int, ...]  # tokens that are read but not learnt
    parent: int  # index of the part that it continues, or its own
    sequence: int = 0
    completion: Completion | None = None

    @property
    def sampled(self) -> Sequence[int]:
        return () if self.completion is None else self.completion.tokens

    @property
    def log_probs(self) -> Sequence[float]:
        return () if self.completion is None else self.completion.log_probs


def pack_groups(
    groups: Sequence[Group],
    advantages: np.ndarray,
    values: np.ndarray,
    stage: RlStage,
    pad_id: int,
    depth: int = 0,
) -> PolicyBatch:
    """Pack every judged completion (NaN in `values`: left out) behind its group's prompt.

    A group that does not fit a row becomes several documents. A branch repeats as much of the prompt as the first
    sampled token is predicted from: its last token, and `depth` more for multi-token prediction.

    Raises InputError when a prompt and its completion do not fit `sequence_length`.
    """
    counted, width = ~np.isnan(values), stage.sequence_length + 1
    _check_lengths(groups, counted, stage)
    documents: list[list[_Part]] = []
    num_parts = num_sequences = 0
    for group, kept in zip(groups, counted, strict=True):
        completions = [item.completion for item, keep in zip(group.judged, kept, strict=True) if keep]
        if not completions:
            continue
        sizes = np.array([len(completion.tokens) for completion in completions])
        shared, repeated = group.prompt[: -1 - depth], group.prompt[-1 - depth :]
        bins, num_bins = fill_bins(sizes + len(repeated), width - len(shared))
        for number in range(num_bins):
            members = np.flatnonzero(bins == number)
            first = num_parts
            parts = [_Part(shared, first)] if shared else []
            for k in members.tolist():
                parent = first if shared else first + len(parts)
                parts.append(_Part(repeated, parent, num_sequences + k, completions[k]))
            documents.append(parts)
            num_parts += len(parts)
        num_sequences += len(completions)
    return _laid_out(documents, advantages[counted], stage, pad_id)


def _check_lengths(groups: Sequence[Group], counted: np.ndarray, stage: RlStage) -> None:
    longest = max(
        len(group.prompt) + len(item.completion.tokens)
        for group, kept in zip(groups, counted, strict=True)
        for item, keep in zip(group.judged, kept, strict=True)
        if keep
    )
    if longest > stage.sequence_length + 1:
        raise InputError(
            f"a prompt with its completion holds {longest} tokens, more than sequence_length "
            f"({stage.sequence_length}); raise it or lower max_completion_tokens"
        )


def _laid_out(
    documents: list[list[_Part]], advantages: np.ndarray, stage: RlStage, pad_id: int
) -> PolicyBatch:
    """Pack the documents whole and gather what is known of their tokens to the places that these were given."""
    parts = list(chain.from_iterable(documents))
    read = np.array([len(part.prompt) for part in parts])
    learnt = np.array([len(part.sampled) for part in parts])
    part = np.repeat(np.arange(len(parts)), read + learnt)
    within = np.arange(len(part)) - (np.cumsum(read + learnt) - read - learnt)[part]
    ends = np.cumsum(read + learnt)[np.cumsum([len(document) for document in documents]) - 1]
    layout = pack_arrays(np.arange(len(part)), np.concatenate([[0], ends]), 0, stage.sequence_length + 1)
    place, real = layout.tokens, layout.segments > 0
    counted = real & (within >= read[part])[place]
    tokens = np.fromiter(chain.from_iterable((*p.prompt, *p.sampled) for p in parts), np.int32)
    sampled = np.zeros(len(part), np.float32)
    sampled[within >= read[part]] = list(chain.from_iterable(p.log_probs for p in parts))
    num_tokens, num_sequences = int(learnt.sum()), len(advantages)
    weights = [
        token_weight(stage.aggregation, max(int(n), 1), num_tokens, num_sequences, stage.max_completion_tokens)
        for n in learnt
    ]
    sequences, parents = np.array([p.sequence for p in parts]), np.array([p.parent for p in parts])
    where = part[place]
    rows = Rows(
        np.where(real, tokens[place], pad_id).astype(np.int32),
        np.where(real, where + 1, 0).astype(np.int32),
        counted.astype(np.float32),
    )
    extras = {
        "advantages": advantages.astype(np.float32)[sequences[where]] * counted,
        "token_weights": np.array(weights, np.float32)[where] * counted,
        "sampled_log_probs": sampled[place] * counted,
        "sequences": sequences[where].astype(np.int64),
    }
    return PolicyBatch(rows, np.where(real, parents[where] + 1, 0).astype(np.int32), extras, num_tokens)
