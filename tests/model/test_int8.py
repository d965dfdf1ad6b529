"""Products in int8 against the same arithmetic written out in torch, and against plain products in fp64."""

import math

import pytest
import torch
import torch.nn.functional as F

from clearseek.model.kernels import library, products
from tests.model.kernel_inputs import BF16, assert_same, lane_sized, packed, plain

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=f"no kernels: {library.why_not()}")

STRETCH = 256  # rows that share a scale in the gradient of a weight
NOISE = 0.02  # of one product of random numbers, relative to its norm: two factors, each off by up to 1 / 254


def rounded(x, dim):
    """x in fp64 as int8 times a scale for each line along `dim`."""
    largest = x.abs().amax(dim, keepdim=True).float()
    factor = torch.tensor(127.0) / largest  # a number divided by a tensor is rounded twice
    return (x * factor.double()).round() * (largest / 127).double()


def relative(ours, wanted):
    """The norm of the difference by that of what is wanted."""
    return float((ours.detach().double() - wanted).norm() / wanted.norm())


def weight_gradient(dy, x):
    """Σ dyᵀ · x with scales for every column of a stretch of rows."""
    parts = zip(dy.double().split(STRETCH), x.double().split(STRETCH), strict=True)
    return sum(rounded(d, 0).t() @ rounded(c, 0) for d, c in parts)


@pytest.mark.parametrize("rows", [1, 2, 47, 301, 700])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (48, 80), (272, 32), (64, 208)])
def test_linear_is_int8_with_scales(random, rows, inputs, outputs):
    """To the rounding of bf16, whatever is left over of tiles, bands, panels and words."""
    x, weight = random(rows, inputs, dtype=BF16), random(outputs, inputs)
    y = products.Linear.apply(x, weight, True)
    w = weight.detach().bfloat16().double()
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(BF16)
    y.backward(dy)
    assert relative(y, rounded(x.detach().double(), 1) @ rounded(w, 1).t()) < 0.004
    assert relative(x.grad, rounded(dy.double(), 1) @ rounded(w, 0)) < 0.004
    assert relative(weight.grad, weight_gradient(dy, x.detach())) < 1e-4


def test_linear_is_near_the_plain_product(random):
    x, weight = random(600, 128, dtype=BF16), random(320, 128)
    (a, b), wanted = plain(lambda x, w: x @ w.t(), x, weight)
    y = products.Linear.apply(x, weight, True)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(BF16)
    y.backward(dy)
    wanted.backward(dy.double())
    for ours, theirs in ((y, wanted.detach()), (x.grad, a.grad), (weight.grad, b.grad)):
        assert 0 < relative(ours, theirs) < NOISE


def test_a_row_does_not_depend_on_the_others(random):
    x, weight = random(100, 64, dtype=BF16).detach(), random(48, 64)
    whole = products.Linear.apply(x, weight, True)
    assert torch.equal(whole[37:41], products.Linear.apply(x[37:41].clone(), weight, True))


def test_nothing_is_lost_of_rows_of_any_size(random):
    """Rows of zeros, of 1e-20 and of 1e20 side by side: each has its own scale; below 1e-30 is nothing."""
    x, weight = random(6, 32, dtype=BF16).detach(), random(48, 32).detach()
    sizes = torch.tensor([1.0, 0.0, 1e-20, 1e20, 1e-35, 1.0], dtype=torch.float64)
    x = (x.double() * sizes[:, None]).to(BF16)
    y = products.Linear.apply(x, weight, True).double()
    wanted = x.double() @ weight.double().t()
    for row in (0, 2, 3, 5):
        assert relative(y[row], wanted[row]) < NOISE
    assert not y[1].any()
    assert not y[4].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(random, bad):
    """In its row of the result and of the gradient of x, and in its column of the weight's."""
    x, weight = random(70, 32, dtype=BF16).detach(), random(48, 32)
    x[5, 3] = bad
    x.requires_grad_()
    y = products.Linear.apply(x, weight, True)
    finite = y.isfinite().all(1)
    assert finite.tolist() == [row != 5 for row in range(70)]
    dy = torch.ones_like(y)
    dy[9, 4] = bad
    y.backward(dy)
    assert x.grad.isfinite().all(1).tolist() == [row != 9 for row in range(70)]
    assert not weight.grad[4].isfinite().any()
    assert not weight.grad[:, 3].isfinite().any()
    assert weight.grad[5:, 4:].isfinite().all()


@pytest.mark.parametrize("rows", [1, 95, 520])
def test_feed_forward(random, rows):
    x, gate_up, down = random(rows, 80, dtype=BF16), random(1, 224, 80), random(1, 80, 112)

    def form(x, gate_up, down):
        gate, up = (x @ gate_up[0].t()).chunk(2, dim=-1)
        return (F.silu(gate) * up) @ down[0].t()

    near((x, gate_up, down), form, products.FeedForward.apply(x, gate_up, down, None, None, 1, True))


@pytest.mark.parametrize("unused", [None, 2])
def test_experts(random, unused):
    """Each token through its own experts, also where an expert is chosen by nobody."""
    x, gate_up, down = random(300, 48, dtype=BF16), random(4, 64, 48), random(4, 48, 32)
    scores = torch.rand(300, 4, generator=torch.Generator().manual_seed(2))
    if unused is not None:
        scores[:, unused] = -1
    chosen = torch.zeros(300, 4, dtype=torch.bool).scatter_(1, scores.topk(2).indices, True)
    gates = (scores * chosen).clamp(min=0.0).requires_grad_()

    def form(x, gate_up, down, gates):
        gate, up = torch.einsum("nc,edc->ned", x, gate_up).chunk(2, dim=-1)
        return torch.einsum(
            "nei,eci->nc", F.silu(gate) * up * gates.unsqueeze(-1) * chosen.unsqueeze(-1), down
        )

    near(
        (x, gate_up, down, gates), form, products.FeedForward.apply(x, gate_up, down, chosen, gates, 2, True)
    )


def near(tensors, form, y):
    """Result and gradients, each within the noise of the products on its way."""
    leaves, wanted = plain(form, *tensors)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(BF16)
    y.backward(dy)
    wanted.backward(dy.double())
    assert relative(y, wanted.detach()) < 2 * NOISE
    for mine, theirs in zip(tensors, leaves, strict=True):
        assert relative(mine.grad, theirs.grad) < 3 * NOISE


@pytest.mark.parametrize("name", ["deepseek_v3 mtp", "qwen3"])
def test_a_model_multiplies_in_int8_only_while_it_learns(name):
    """Whoever only reads the model gets what it is in bf16, bit for bit."""
    model, tokens = lane_sized(name), torch.arange(80).view(2, 40) % 97
    segments = packed(2, 40)
    before = model(tokens, segments, BF16).states
    model.learn_in_int8(True)
    learning = model(tokens, segments, BF16).states
    with torch.no_grad():
        assert torch.equal(model(tokens, segments, BF16).states, before)
    assert not torch.equal(learning, before)
    assert_same(learning, before, tolerance=0.1)
    model.learn_in_int8(False)
    assert torch.equal(model(tokens, segments, BF16).states, before)
