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
    """One segment to be packed: the shared beginning of a prompt, or a branch with its completion."""

    prompt: tuple[int, ...]  # read, not learnt
    continues: bool = False  # the first part of its document
    sequence: int = 0
    sampled: Sequence[int] = ()
    log_probs: Sequence[float] = ()


def pack_groups(
    groups: Sequence[Group],
    advantages: np.ndarray,
    values: np.ndarray,
    stage: RlStage,
    pad_id: int,
    depth: int = 0,
) -> PolicyBatch:
    """Pack every judged completion (NaN in `values`: left out) behind its group's prompt.

    A group that does not fit a row becomes several documents. A branch repeats as much of the prompt as its first
    sampled token is predicted from: the last token, and `depth` more for multi-token prediction.

    Raises InputError when a prompt and its completion do not fit `sequence_length`.
    """
    counted = ~np.isnan(values)
    numbers = np.cumsum(counted).reshape(counted.shape) - 1
    chosen = [
        (group.prompt, {numbers[i, j]: group.judged[j].completion for j in np.flatnonzero(counted[i])})
        for i, group in enumerate(groups)
    ]
    longest = max(len(prompt) + len(one.tokens) for prompt, some in chosen for one in some.values())
    if longest > stage.sequence_length + 1:
        raise InputError(
            f"a prompt with its completion holds {longest} tokens, more than sequence_length "
            f"({stage.sequence_length}); raise it or lower max_completion_tokens"
        )
    documents = [one for part in chosen for one in _documents(*part, stage.sequence_length + 1, depth)]
    return _laid_out(documents, advantages[counted], stage, pad_id)


def _documents(
    prompt: tuple[int, ...], completions: dict[int, Completion], width: int, depth: int
) -> list[list[_Part]]:
    """The shared part with as many branches as fit a row of `width`, and again with those that are left."""
    shared, repeated = prompt[: -1 - depth], prompt[-1 - depth :]
    branches = [
        _Part(repeated, bool(shared), number, completion.tokens, completion.log_probs)
        for number, completion in completions.items()
    ]
    sizes = np.array([len(repeated) + len(branch.sampled) for branch in branches], np.int64)
    bins, count = fill_bins(sizes, width - len(shared))
    trunk = [_Part(shared)] if shared else []
    return [trunk + [branches[k] for k in np.flatnonzero(bins == number)] for number in range(count)]


def _laid_out(
    documents: list[list[_Part]], advantages: np.ndarray, stage: RlStage, pad_id: int
) -> PolicyBatch:
    """Pack the documents whole and gather what is known of their tokens to the places that these were given."""
    parts = list(chain.from_iterable(documents))
    sizes = np.array([len(document) for document in documents])
    learnt = np.array([len(part.sampled) for part in parts])
    lengths = learnt + [len(part.prompt) for part in parts]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    bounds = offsets[np.concatenate([[0], np.cumsum(sizes)])]
    layout = pack_arrays(np.arange(offsets[-1]), bounds, 0, stage.sequence_length + 1)

    part_of = np.repeat(np.arange(len(parts)), lengths)
    is_learnt = np.arange(offsets[-1]) >= (offsets[1:] - learnt)[part_of]
    tokens = np.fromiter(chain.from_iterable((*p.prompt, *p.sampled) for p in parts), np.int32)
    sampled = np.zeros(len(tokens), np.float32)
    sampled[is_learnt] = list(chain.from_iterable(part.log_probs for part in parts))
    sequences = np.array([part.sequence for part in parts], np.int64)
    first = np.repeat(np.cumsum(sizes) - sizes, sizes)
    parents = np.where([part.continues for part in parts], first, np.arange(len(parts)))
    num_tokens = int(learnt.sum())
    weights = [
        token_weight(stage.aggregation, n, num_tokens, len(advantages), stage.max_completion_tokens)
        for n in np.maximum(learnt, 1).tolist()
    ]

    place, real = layout.tokens, layout.segments > 0
    part, counted = part_of[place], real & is_learnt[place]
    rows = Rows(
        np.where(real, tokens[place], pad_id).astype(np.int32),
        np.where(real, part + 1, 0).astype(np.int32),
        counted.astype(np.float32),
    )
    extras = {
        "advantages": advantages.astype(np.float32)[sequences[part]] * counted,
        "token_weights": np.array(weights, np.float32)[part] * counted,
        "sampled_log_probs": sampled[place] * counted,
        "sequences": sequences[part],
    }
    return PolicyBatch(rows, np.where(real, parents[part] + 1, 0).astype(np.int32), extras, num_tokens)
