"""The kernels' own products against plain ones in fp64, at sizes that leave parts of a tile, a band or a panel over."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from clearseek.model import layers, log_probs
from clearseek.model.kernels import library, products
from tests.model.kernel_inputs import BF16, assert_same, compare, lane_sized, packed

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=f"no kernels: {library.why_not()}")


@pytest.mark.parametrize("rows", [1, 2, 47, 301])
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 16), (48, 80), (272, 32), (64, 208)])
def test_linear(random, rows, inputs, outputs):
    x, weight = random(rows, inputs, dtype=BF16), random(outputs, inputs)
    compare(products.Linear.apply, lambda x, w: x @ w.bfloat16().double().t(), x, weight)


def test_linear_keeps_shapes_and_dtypes(random):
    """Rows of slices, more dimensions in front, and weights that are in bf16 already."""
    wide = random(3, 7, 96, dtype=BF16)
    for begin in (0, 3):  # three numbers further in, pairs of neighbours are none
        x = wide[:, 1:, begin : begin + 32]
        weight = random(48, 32, dtype=BF16)
        y = products.Linear.apply(x, weight)
        assert y.shape == (3, 6, 48)
        assert_same(y, x.double() @ weight.double().t())
        y.sum().backward()
        assert weight.grad.dtype == BF16
        assert_same(weight.grad, x.double().sum((0, 1)).expand(48, 32))


def test_linear_gives_only_the_gradients_that_are_asked_for(random):
    x, weight = random(40, 32, dtype=BF16), random(48, 32)
    products.Linear.apply(x.detach(), weight).sum().backward()
    products.Linear.apply(x, weight.detach()).sum().backward()
    assert weight.grad.shape == (48, 32)
    assert x.grad.shape == (40, 32)


@pytest.mark.parametrize("rows", [1, 95, 520])
@pytest.mark.parametrize(("inputs", "outputs", "passed"), [(32, 64, 16), (80, 16, 0), (16, 48, 32)])
def test_heads_of_their_own(random, rows, inputs, outputs, passed):
    """Every head its own product; what stands behind its inputs goes with it."""
    x, weight = random(rows, 3, inputs + passed, dtype=BF16), random(3, outputs, inputs)

    def form(x, weight):
        own = torch.einsum("nhc,hdc->nhd", x[..., :inputs], weight.bfloat16().double())
        return torch.cat((own, x[..., inputs:]), -1)

    compare(products.HeadProducts.apply, form, x, weight)


@pytest.mark.parametrize(("rows", "experts"), [(1, 4), (50, 17), (129, 70)])
def test_scores_of_experts(random, rows, experts):
    """In fp32 from bf16 rows: near ties are decided by them."""
    x, weight = random(rows, 80, dtype=BF16), random(experts, 80)
    compare(products.RouterScores.apply, lambda x, w: x @ w.t(), x, weight, tolerance=4e-3)
    assert_same(products.RouterScores.apply(x, weight), x.double() @ weight.double().t(), 1e-6)


@pytest.mark.parametrize("rows", [1, 95, 520])
def test_feed_forward(random, rows):
    """One expert for all rows: the dense form."""
    x, gate_up, down = random(rows, 80, dtype=BF16), random(1, 224, 80), random(1, 80, 112)

    def form(x, gate_up, down):
        gate, up = (x @ gate_up[0].t()).chunk(2, dim=-1)
        return (F.silu(gate) * up) @ down[0].t()

    compare(products.FeedForward.apply, form, x, gate_up, down, tolerance=0.02)


@pytest.mark.parametrize("rows", [21, 600])
@pytest.mark.parametrize("unused", [None, 2])
def test_experts(random, unused, rows):
    """Each token through its own experts, also where an expert is chosen by nobody."""
    x, gate_up, down = (
        random(rows, 32, dtype=BF16),
        random(4, 96, 32, dtype=BF16),
        random(4, 32, 48, dtype=BF16),
    )
    scores = torch.randn(rows, 4, generator=torch.Generator().manual_seed(5))
    if unused is not None:
        scores[:, unused] = -9
    chosen = torch.zeros(rows, 4, dtype=torch.bool).scatter_(1, scores.topk(2, dim=-1).indices, True)
    gates = (scores.sigmoid() * chosen).requires_grad_()

    def form(x, gates, gate_up, down):
        gate, up = torch.einsum("nc,eic->nei", x, gate_up).chunk(2, dim=-1)
        return torch.einsum("nei,eci,ne->nc", F.silu(gate) * up, down, gates * chosen)

    compare(
        lambda x, g, w, d: products.FeedForward.apply(x, w, d, chosen, g, 2), form, x, gates, gate_up, down,
        tolerance=0.02,
    )  # fmt: skip


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("learning", [(), (0,), (1,), (0, 1)])
def test_frozen_weights_cost_no_gradient(random, learning, int8):
    """Beside an adapter most weights are frozen: theirs is absent, and all others are the same to the last bit."""
    rows, experts = 1100, 3  # more than go both ways at once
    x, gates = random(rows, 64, dtype=BF16), random(rows, experts)
    given = random(experts, 96, 64), random(experts, 64, 48)
    chosen = torch.ones(rows, experts, dtype=torch.bool)
    chosen[:, 1] = False

    def gradients(weights):
        y = products.FeedForward.apply(x, *weights, chosen, gates, 2, int8)
        return torch.autograd.grad(y.square().sum(), [x, gates, *(w for w in weights if w.requires_grad)])

    whole = gradients(given)
    some = gradients([w if i in learning else w.detach() for i, w in enumerate(given)])
    expected = [*whole[:2], *(whole[2 + i] for i in learning)]
    assert all(torch.equal(a, b) for a, b in zip(some, expected, strict=True))


def test_the_kernels_make_no_gradient_of_frozen_weights(random, monkeypatch):
    """What they are given to write into: nothing for a frozen weight."""
    written, call = [], products.call
    monkeypatch.setattr(
        products, "call", lambda name, *given: written.append((name, given)) or call(name, *given)
    )
    x, frozen = random(40, 32, dtype=BF16), random(20, 32).detach()
    log_probs.target_log_probs(x, frozen, torch.arange(40) % 20).sum().backward()
    name, given = written[-1]
    assert (name, given[7].shape, given[8]) == ("linear_backward", (40, 32), None)
    products.FeedForward.apply(x, random(1, 96, 32).detach(), random(1, 32, 48).detach()).sum().backward()
    name, given = written[-1]
    assert (name, given[11:13]) == ("feed_forward_backward", (None, None))


@pytest.mark.parametrize("vocabulary", [16, 91])
def test_weights_are_laid_out_in_panels(random, vocabulary):
    """Each way once, a vocabulary of any size filled up with zeros."""
    weight = random(vocabulary, 32).detach()
    rounded = F.pad(weight.bfloat16(), (0, 0, 0, -vocabulary % 16))
    columns = products.pack(weight).view(BF16).unflatten(-1, (64, 2))[..., : min(64, len(rounded)), :]
    for pair, neighbours in ((0, (0, 1)), (15, (30, 31))):
        assert torch.equal(columns[0, pair], rounded[: columns.shape[2], neighbours])
    lines = products.pack(weight, transposed=False).view(BF16).unflatten(-1, (64, 2))
    assert torch.equal(lines[0, :, :32, 0], rounded[0::2])
    assert torch.equal(lines[0, :, :32, 1], rounded[1::2])


class _TorchProducts(TorchDispatchMode):
    """Notes every product that torch computes in bf16."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        if function in (torch.ops.aten.mm.default, torch.ops.aten.bmm.default, torch.ops.aten.addmm.default):
            self.sizes += [tuple(x.shape) for x in arguments if x.dtype == BF16]
        return function(*arguments, **(keywords or {}))


@pytest.mark.parametrize("name", ["deepseek_v3 mtp", "qwen3"])
def test_a_model_leaves_no_product_to_torch(name):
    """Torch prepares every shape that it has not met for longer than it then computes."""
    model = lane_sized(name)
    tokens = torch.randint(0, 97, (5, 40), generator=torch.Generator().manual_seed(1))
    with _TorchProducts() as torch_products:
        states = model(tokens, packed(5, 40), BF16).states.flatten(0, 1)
        log_probs.target_log_probs(states, model.head_weight, tokens.flatten()).sum().backward()
    assert torch_products.sizes == []


def test_few_rows_are_left_to_torch(random):
    """Where laying out the weight would cost more than the product."""
    linear = layers.Linear(32, 48)
    torch.nn.init.normal_(linear.weight)
    with _TorchProducts() as torch_products, torch.no_grad():
        for rows in (layers.MANY_ROWS - 1, layers.MANY_ROWS):
            x = random(rows, 32, dtype=BF16)
            assert_same(linear(x), x.double() @ linear.weight.double().t())
    assert torch_products.sizes == [(layers.MANY_ROWS - 1, 32), (32, 48)]
