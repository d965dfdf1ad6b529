"""Log-probabilities beside the drawn token's, and of a prompt, against a softmax in float64."""

import numpy as np
import pytest
import torch

from clearseek.engine.reported import PromptReport, alternatives
from clearseek.engine.request import Sampling

LOGITS = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)) * 2


def log_softmax(logits: torch.Tensor, temperature: float) -> np.ndarray:
    scores = logits.double().numpy() / temperature
    return scores - np.log(np.exp(scores).sum(-1, keepdims=True))


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_alternatives_are_the_likeliest_in_order_and_the_drawn_one_has_its_value(temperature):
    found = alternatives(Sampling(temperature, top_log_probs=5), LOGITS[0], int(LOGITS[0].argmax()), -0.125)
    exact = log_softmax(LOGITS[0], temperature or 1.0)
    order = np.argsort(-exact)[:5]
    assert list(found.tokens) == order.tolist()
    assert found.log_probs[0] == -0.125
    np.testing.assert_allclose(found.log_probs[1:], exact[order[1:]], rtol=1e-5)


def test_none_are_reported_unasked_and_never_more_than_there_are():
    assert alternatives(Sampling(), LOGITS[0], 3, -1.0) is None
    assert len(alternatives(Sampling(top_log_probs=100), LOGITS[0], 3, -1.0).tokens) == 30


@pytest.mark.parametrize("count", [0, 3])
def test_a_prompts_log_probs_are_given_what_came_before(count):
    """However it is read: in one piece, or in two, of which one is read again."""
    prompt, exact = [5, 7, 9, 11, 2], log_softmax(LOGITS, 1.0)
    for pieces in ((0, 4),), ((0, 2), (1, 4)):
        report = PromptReport(prompt, count)
        for first, last in pieces:
            assert not report.is_whole
            report.note(first, LOGITS[first:last])
        assert report.is_whole
        assert report.log_probs[0] is None
        assert report.alternatives[0] is None
        wanted = [exact[place, token] for place, token in enumerate(prompt[1:])]
        np.testing.assert_allclose(report.log_probs[1:], wanted, rtol=1e-5)
        for place, found in enumerate(report.alternatives[1:]):
            assert (found is None) == (count == 0)
            if found is not None:
                assert list(found.tokens) == np.argsort(-exact[place])[:count].tolist()


def test_what_was_handed_out_is_not_forgotten():
    report = PromptReport([5, 7], 1)
    report.note(0, LOGITS[:1])
    given = report.log_probs, report.alternatives
    report.forget()
    assert not report.is_whole
    assert report.log_probs == report.alternatives == [None, None]
    assert None not in (given[0][1], given[1][1])
