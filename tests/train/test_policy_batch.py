"""Sampled groups packed into rows: every completion once, whole, behind a prompt, with its own numbers.

And what is computed from these rows: the same as from a row for each completion.
"""

import numpy as np
import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine.request import Completion
from clearseek.engine.rollout import Group, Judged
from clearseek.tasks.verify import Verdict
from clearseek.text.packing import Example, pack
from clearseek.train.learner import micro_batches
from clearseek.train.policy_batch import pack_groups
from tests.engine.scripted import problem
from tests.train.small import CPU, gradient_of, learner_of, relative_difference, rl_stage

PAD = EOS = 1  # models without a padding token pad with the end of sentence
LENGTHS = [[3, 9, 1, 20], [24, 2, 2, 7], [5, 5, 11, 4]]


def groups_of(lengths=LENGTHS):
    """Groups whose tokens tell where they come from; every second completion was cut by the budget."""
    groups = []
    for i, row in enumerate(lengths):
        prompt = tuple(1000 * (i + 1) + k for k in range(4 + i))
        judged = []
        for j, length in enumerate(row):
            tokens = [10_000 * (i + 1) + 100 * (j + 1) + k for k in range(length)]
            if j % 2 == 0:
                tokens[-1] = EOS
            completion = Completion(tokens, [-0.001 * t for t in tokens], "stop" if j % 2 == 0 else "length")
            judged.append(Judged(completion, "", "", Verdict.correct, None))
        groups.append(Group(problem(str(i)), prompt, tuple(judged)))
    return groups


def values_of(lengths=LENGTHS):
    """Rewards and advantages: any numbers that differ."""
    rewards = np.arange(sum(map(len, lengths)), dtype=float).reshape(len(lengths), -1)
    return rewards + 1, rewards - 5


def batch_of(stage, rewards=None):
    values, advantages = values_of()
    values = values if rewards is None else rewards
    return pack_groups(groups_of(), advantages, values, stage, PAD), advantages


def pieces(batch):
    """Every completion behind its prompt, shared or not: its tokens and, of each, weight and extras."""
    rows = batch.rows
    for row in range(len(rows)):
        for segment in np.unique(rows.segments[row][rows.weights[row] > 0]):
            own = rows.segments[row] == segment
            here = own | (rows.segments[row] == batch.parents[row][own][0])
            yield (
                rows.tokens[row][here],
                rows.weights[row][here],
                {n: v[row][here] for n, v in batch.extras.items()},
            )


def test_every_completion_stands_behind_its_prompt():
    batch, advantages = batch_of(rl_stage())
    found = {}
    for tokens, weights, extras in pieces(batch):
        (number,) = set(extras["sequences"][weights > 0].tolist())
        assert number not in found
        i, j = divmod(number, 4)
        group = groups_of()[i]
        completion, size = group.judged[j].completion, len(group.prompt)
        assert tokens.tolist() == [*group.prompt, *completion.tokens]
        assert weights.tolist() == [0] * size + [1] * len(completion.tokens)
        assert extras["advantages"].tolist() == [0] * size + [advantages[i, j]] * len(completion.tokens)
        assert extras["sampled_log_probs"][size:] == pytest.approx(np.float32(completion.log_probs))
        assert (extras["sampled_log_probs"][:size] == 0).all()
        found[number] = True
    assert len(found) == 12
    assert batch.num_tokens == sum(map(sum, LENGTHS)) == batch.rows.num_counted_tokens


def test_the_end_of_sentence_is_trained_on_and_padding_is_not():
    """T19, where both are the same token."""
    batch, _ = batch_of(rl_stage())
    ends = (batch.rows.tokens == EOS) & (batch.rows.segments > 0)
    padding = batch.rows.segments == 0
    assert ends.sum() == 6  # of the finished ones only
    assert (batch.rows.weights[ends] == 1).all()
    assert (batch.rows.tokens[padding] == PAD).all()
    for name in ("token_weights", "advantages", "sampled_log_probs"):
        assert (batch.extras[name][padding] == 0).all()
    assert (batch.rows.weights[padding] == 0).all()


@pytest.mark.parametrize("aggregation", ["token_mean", "sequence_mean"])
def test_weights_sum_to_one_over_the_whole_batch(aggregation):
    for size in (1, 2, 5):
        batch, _ = batch_of(rl_stage(aggregation=aggregation))
        parts = batch.micro_batches(size, CPU)
        total = sum(float(part.extras["token_weights"].double().sum()) for part in parts)
        assert total == pytest.approx(1, abs=1e-6)
    weights = {int(e["sequences"][-1]): float(e["token_weights"].sum()) for _, _, e in pieces(batch)}
    for number, weight in weights.items():
        share = LENGTHS[number // 4][number % 4] / batch.num_tokens
        assert weight == pytest.approx(share if aggregation == "token_mean" else 1 / 12, rel=1e-5)


def test_constant_weights_are_the_same_for_every_token():
    batch, _ = batch_of(rl_stage(aggregation="constant", max_completion_tokens=24))
    weights = batch.extras["token_weights"]
    assert np.unique(weights[weights > 0]) == pytest.approx([1 / (12 * 24)])


def test_failed_verdicts_are_left_out_of_rows_and_counts():
    """T13: as if they had never been sampled."""
    values, _ = values_of()
    values[0, 1] = values[2, 0] = np.nan
    batch, _ = batch_of(rl_stage(), values)
    assert len(list(pieces(batch))) == 10
    assert batch.num_tokens == sum(map(sum, LENGTHS)) - 9 - 5
    assert float(batch.extras["token_weights"].sum()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("fill", [True, False])
def test_extras_stay_with_their_tokens_in_micro_batches(fill):
    """Filled up where shapes must stay the same, else without a row too many."""
    batch, _ = batch_of(rl_stage())
    parts = batch.micro_batches(2, CPU, fill)
    for name, values in batch.extras.items():
        joined = torch.cat([part.extras[name] for part in parts])[: len(batch.rows)]
        assert np.array_equal(joined.numpy(), values[:, 1:])
    sizes = [len(part.tokens) for part in parts]
    assert sizes == [2] * len(parts) if fill else sum(sizes) == len(batch.rows)


def test_too_long_for_a_row_names_the_setting():
    with pytest.raises(InputError, match=r"29 tokens, more than sequence_length \(16\)"):
        batch_of(rl_stage(sequence_length=16))


@pytest.mark.parametrize("length", [28, 40, 64, 500])
def test_a_prompt_stands_once_in_a_row_and_again_only_where_its_group_is_split(length):
    batch, _ = batch_of(rl_stage(sequence_length=length))
    shared = [
        (rows[segment == parent], segment[segment == parent])
        for rows, segment, parent in zip(batch.rows.tokens, batch.rows.segments, batch.parents, strict=True)
    ]
    copies = np.concatenate([np.unique(segments[segments > 0]) for _, segments in shared])
    assert len(copies) == len(set(copies)) <= 8
    if length == 500:
        assert len(copies) == 3
        assert int((batch.rows.segments > 0).sum()) == sum(3 + i + 4 + sum(n) for i, n in enumerate(LENGTHS))


def test_a_prompt_of_one_token_and_a_group_of_one_completion():
    groups = groups_of()
    groups[0] = Group(groups[0].problem, (7,), groups[0].judged)
    values, advantages = values_of()
    values[1, 1:] = values[2] = np.nan
    batch = pack_groups(groups, advantages, values, rl_stage(), PAD)
    found = [tokens.tolist() for tokens, _, _ in pieces(batch)]
    wanted = [[7, *item.completion.tokens] for item in groups[0].judged]
    wanted.append([*groups[1].prompt, *groups[1].judged[0].completion.tokens])
    assert sorted(found) == sorted(wanted)


def sampled_groups(seed):
    """Groups of random tokens that a tiny model knows, prompts of 1 to 9, completions of 1 to 14."""
    generator = np.random.default_rng(seed)
    groups = []
    for i in range(3):
        prompt = tuple(generator.integers(3, 97, generator.integers(1, 10)).tolist())
        judged = []
        for _ in range(4):
            tokens = generator.integers(3, 97, generator.integers(1, 15)).tolist()
            judged.append(
                Judged(Completion(tokens, [0.0] * len(tokens), "stop"), "", "", Verdict.correct, None)
            )
        groups.append(Group(problem(str(i)), prompt, tuple(judged)))
    return groups


def log_probs_of(learner, batches, wanted):
    """The log-probability of every counted token, by completion: `wanted` says which one each is of."""
    found = {}
    for batch, numbers in zip(batches, wanted, strict=True):
        values, _ = learner.log_probs(batch)
        for number in numbers[batch.target_weights > 0].unique().tolist():
            found[number] = values[(numbers == number) & (batch.target_weights > 0)]
    return [found[number] for number in sorted(found)]


@pytest.mark.parametrize("length", [24, 48, 100])
@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3", "deepseek_v3 mtp"])
def test_sharing_a_prompt_changes_neither_log_probabilities_nor_the_gradient(name, length):
    """Against a row for each completion, in which no segment has a parent."""
    for seed in range(3):
        groups = sampled_groups(seed)
        learners = [learner_of(name, balance_loss_weight=0.0) for _ in range(2)]
        examples = [
            Example([*group.prompt, *item.completion.tokens], len(group.prompt))
            for group in groups
            for item in group.judged
        ]
        rows = [pack([example], length + 1) for example in examples]
        alone = [micro_batches(one, 1, CPU)[0] for one in rows]
        numbers = [torch.full((1, length), i) for i in range(len(alone))]
        batch = pack_groups(
            groups,
            np.ones((3, 4)),
            np.ones((3, 4)),
            rl_stage(sequence_length=length),
            PAD,
            learners[0].mtp_depth,
        )
        shared = batch.micro_batches(2, CPU)
        ours = log_probs_of(learners[0], shared, [part.extras["sequences"] for part in shared])
        theirs = log_probs_of(learners[1], alone, numbers)
        assert len(ours) == len(theirs) == 12
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
        gradients = [
            gradient_of(learner, batches, batch.num_tokens, 1)[0]
            for learner, batches in zip(learners, (shared, alone), strict=True)
        ]
        assert relative_difference(*gradients) < 1e-5


def test_a_router_counts_a_shared_prompt_once():
    """What is computed and goes on: not the last token of a branch, nor padding."""
    learner, groups = learner_of("deepseek_v3"), sampled_groups(0)
    batch = pack_groups(groups, np.ones((3, 4)), np.ones((3, 4)), rl_stage(sequence_length=500), PAD)
    (part,) = batch.micro_batches(8, CPU)
    _, hidden = learner.log_probs(part)
    wanted = sum(len(group.prompt) - 1 for group in groups) + batch.num_tokens
    for load in hidden.loads:
        assert int(load.tokens_per_expert.sum()) == wanted * learner.model.config.num_experts_per_token
