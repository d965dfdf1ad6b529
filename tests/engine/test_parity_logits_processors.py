"""Penalties and truncations beside transformers' own LogitsProcessors."""

import math

import pytest
import torch

from clearseek.engine.row_sampler import distribution
from tests.engine.rows import row

transformers = pytest.importorskip("transformers")
processing = transformers.generation.logits_process

ROWS, SIZE = 6, 500
LOGITS = torch.randn(ROWS, SIZE, generator=torch.Generator().manual_seed(0)) * 4
TOKENS = torch.randint(SIZE, (ROWS, 40), generator=torch.Generator().manual_seed(1))
PROMPT = 25
DRAWABLE = -37 * math.log(2)  # a little above the 2^-38 of `fixed_point`


def ours(**own) -> torch.Tensor:
    rows = [row(SIZE, ids[:PROMPT], ids[PROMPT:], **own) for ids in TOKENS.tolist()]
    return distribution(rows, LOGITS)


def theirs(*processors) -> torch.Tensor:
    scores = LOGITS
    for processor in processors:
        scores = processor(TOKENS, scores)
    return scores.log_softmax(-1)


def agree(mine: torch.Tensor, other: torch.Tensor) -> None:
    """The same tokens are kept, but for those that are less likely than a draw can tell from never."""
    never = mine == -torch.inf
    assert (other[never] < DRAWABLE).all()
    assert (other[~never] > -torch.inf).all()
    torch.testing.assert_close(mine[~never], other[~never], rtol=0, atol=3e-5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(
    ("own", "processor"),
    [
        ({"top_k": 7}, processing.TopKLogitsWarper(7)),
        ({"top_k": 120}, processing.TopKLogitsWarper(120)),
        ({"top_p": 0.5}, processing.TopPLogitsWarper(0.5)),
        ({"top_p": 0.9}, processing.TopPLogitsWarper(0.9)),
        ({"min_p": 0.1}, processing.MinPLogitsWarper(0.1)),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else type(value).__name__,
)
def test_each_truncation_keeps_the_same_tokens(temperature, own, processor):
    mine = ours(temperature=temperature, **own)
    agree(mine, theirs(processing.TemperatureLogitsWarper(temperature), processor))


def test_top_k_before_top_p_as_they_order_them():
    other = theirs(
        processing.TemperatureLogitsWarper(1.5),
        processing.TopKLogitsWarper(40),
        processing.TopPLogitsWarper(0.8),
    )
    agree(ours(temperature=1.5, top_k=40, top_p=0.8), other)


@pytest.mark.parametrize("penalty", [0.7, 1.3])
def test_the_repetition_penalty_counts_prompt_and_completion(penalty):
    mine = ours(repetition_penalty=penalty)
    agree(mine, theirs(processing.RepetitionPenaltyLogitsProcessor(penalty)))


def test_bias_is_added_to_the_scores():
    other = theirs(processing.SequenceBiasLogitsProcessor([[[3], 2.5], [[499], -4.0]]))
    agree(ours(logit_bias={3: 2.5, 499: -4.0}), other)
