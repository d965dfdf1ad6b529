"""The fused kernels against the plain forms beside them, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from clearseek.model import attention, layers, log_probs, rotary
from clearseek.model.experts import Router
from clearseek.model.kernels import functions as kernels
from clearseek.model.kernels import library, products
from tests.model.kernel_inputs import BF16, branched, compare, lane_sized, packed, rms
from tests.model.tiny import CONFIGS

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=f"no kernels: {library.why_not()}")


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize(("given", "wanted"), [(torch.float32, BF16), (BF16, BF16), (BF16, torch.float32)])
def test_norm(random, rows, given, wanted):
    x, weight = random(rows, 48, dtype=given), random(48)
    compare(lambda x, w: kernels.RmsNorm.apply(x, w, 1e-6, wanted), rms, x, weight)


def test_norm_of_a_slice(random):
    whole, weight = random(5, 7, 96, dtype=BF16), random(32)
    compare(
        lambda x, w: kernels.RmsNorm.apply(x[..., 64:], w, 1e-6, BF16),
        lambda x, w: rms(x[..., 64:], w),
        whole,
        weight,
    )


def test_sum_and_norm_together(random):
    stream, delta, weight = random(2, 9, 64), random(2, 9, 64, dtype=BF16), random(64)

    def both(function):
        def joined(*tensors):
            total, normed = function(*tensors)
            return torch.cat([total, normed.to(total.dtype)], dim=-1)

        return joined

    compare(
        both(lambda s, d, w: kernels.AddRmsNorm.apply(s, d, w, 1e-6)),
        both(lambda s, d, w: (s + d, rms(s + d, w))),
        stream,
        delta,
        weight,
    )


def test_sum_alone(random):
    compare(kernels.AddToStream.apply, lambda s, d: s + d, random(3, 32), random(3, 32, dtype=BF16))


@pytest.mark.parametrize("pairs", [True, False])
@pytest.mark.parametrize("has_norm", [True, False])
@pytest.mark.parametrize("turned", [16, 48])
def test_rotation(random, pairs, has_norm, turned):
    x, weight = random(2, 6, 3, 48, dtype=BF16), random(48)
    angles = torch.arange(6.0)[:, None] * torch.linspace(0.1, 1, turned // 2)
    cos, sin = angles.cos(), angles.sin()

    def form(x, weight):
        x = rms(x, weight) if has_norm else x + 0 * weight
        end = x[..., 48 - turned :]
        if pairs:
            a, b = end[..., ::2], end[..., 1::2]
        else:
            a, b = end.chunk(2, dim=-1)
        c, s = cos[:, None].double(), sin[:, None].double()
        first, second = a * c - b * s, b * c + a * s
        new = torch.stack((first, second), -1).flatten(-2) if pairs else torch.cat((first, second), -1)
        return torch.cat((x[..., : 48 - turned], new), -1)

    def fused(x, weight):
        return kernels.Rotate.apply(x, weight if has_norm else None, 1e-6, cos, sin, pairs)

    if has_norm:
        compare(fused, form, x, weight)
    else:
        compare(lambda x: fused(x, weight), lambda x: form(x, weight.double().detach()), x)


@pytest.mark.parametrize("experts", [1, 3])
def test_swiglu(random, experts):
    gate_up, gates = random(5, experts * 2 * 32, dtype=BF16), random(5, experts)

    def form(gate_up, gates):
        gate, up = gate_up.unflatten(-1, (experts, -1)).chunk(2, dim=-1)
        return (F.silu(gate) * up * gates.unsqueeze(-1)).flatten(-2)

    compare(lambda x, g: kernels.SwiGlu.apply(x, g, experts), form, gate_up, gates)


def test_swiglu_without_gates(random):
    compare(
        lambda x: kernels.SwiGlu.apply(x, None, 1),
        lambda x: F.silu(x[..., :32]) * x[..., 32:],
        random(5, 64, dtype=BF16),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"num_expert_groups": 1, "num_limited_groups": 1},
        {},
        {"group_score": "best"},
        {"router_scores": "softmax"},
        {"normalises_gates": False},
        {"router_scores": "softmax", "normalises_gates": False, "has_selection_bias": False},
        {"gate_floor": 0.9},
    ],
    ids=str,
)
def test_routing_is_the_plain_router_s(random, changes):
    config = CONFIGS["deepseek_v3"].model_copy(update=changes)
    router = Router(config)
    torch.nn.init.normal_(router.weight, generator=torch.Generator().manual_seed(2))
    if router.selection_bias is not None:
        router.selection_bias.copy_(torch.linspace(-0.1, 0.1, config.num_routed_experts))
    x = random(11, config.hidden_size)
    scores = F.linear(x, router.weight)
    ours = kernels.Route.apply(scores, router.selection_bias, router.routing)
    wanted = router(x)
    assert torch.equal(ours[1], wanted[1])
    weights = torch.randn(2, *scores.shape, generator=torch.Generator().manual_seed(3))
    gradients = [
        torch.autograd.grad((a * weights[0] + g * weights[1]).sum(), x, retain_graph=True)[0]
        for a, _, g in (ours, wanted)
    ]
    torch.testing.assert_close(ours[0], wanted[0])
    torch.testing.assert_close(ours[2], wanted[2])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("has_branches", [False, True])
@pytest.mark.parametrize("length", [1, 5, 16, 33, 64, 129, 400])
@pytest.mark.parametrize(("heads", "key_heads", "shared"), [(2, 2, 0), (4, 2, 0), (3, 1, 0), (2, 2, 16)])
def test_attention(random, length, heads, key_heads, shared, has_branches):
    """Against the explicit form in fp64: grouped heads, a shared part of the key, packed documents, branches."""
    query = random(3, length, heads, 32 + shared, dtype=BF16)
    key_value = random(3, length, key_heads, 32 + 48, dtype=BF16)
    common = random(3, length, max(shared, 1), dtype=BF16)
    segments, parents = branched(3, length) if has_branches else (packed(3, length), None)
    visible, scale = attention.Visible.of(segments, BF16, parents), 0.3

    def form(query, key_value, common):
        key, value = key_value.split((32, 48), dim=-1)
        if shared:
            key = torch.cat((key, common.unsqueeze(2).expand(-1, -1, key_heads, -1)), dim=-1)
        group = heads // key_heads
        key, value = (part.repeat_interleave(group, dim=2).transpose(1, 2) for part in (key, value))
        scores = query.transpose(1, 2) @ key.transpose(-1, -2) * scale
        weights = scores.masked_fill(~visible.mask(), float("-inf")).softmax(-1)
        return (weights @ value).transpose(1, 2) + 0 * common.sum()

    def fused(query, key_value, common):
        key, value = key_value.split((32, 48), dim=-1)
        mixed = attention.attend_packed(query, key, common if shared else None, value, visible, scale)
        return mixed + 0 * common.sum()

    compare(fused, form, query, key_value, common, tolerance=0.02)


def test_no_token_sees_another_document(random):
    """Changing one document leaves every bit of the others as it was, forward and backward."""
    query, value = random(1, 40, 2, 32, dtype=BF16), random(1, 40, 2, 32, dtype=BF16)
    segments = torch.tensor([[1] * 13 + [2] * 20 + [3] * 7], dtype=torch.int32)
    visible, outside = attention.Visible.of(segments, BF16), segments[0] != 2

    def run(query, value):
        query, value = query.detach().requires_grad_(), value.detach().requires_grad_()
        mixed = attention.attend_packed(query, query, None, value, visible, 0.2)
        mixed[:, outside].float().sum().backward()
        return mixed[:, outside], query.grad[:, outside], value.grad[:, outside]

    before = run(query, value)
    with torch.no_grad():
        query[:, ~outside] *= 3
        value[:, ~outside] = 1e4
    for one, two in zip(before, run(query, value), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("vocabulary", [5, 16, 83, 1040])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_target_log_probs(random, vocabulary, temperature):
    states, weight = random(50, 32, dtype=BF16), random(vocabulary, 32)
    with torch.no_grad():
        weight.copy_(weight.bfloat16())
    targets = torch.arange(50) % vocabulary

    def form(states, weight):
        return log_probs.token_log_probs(states @ weight.T, targets, temperature)

    compare(lambda s, w: log_probs.target_log_probs(s, w, targets, temperature), form, states, weight)


def test_scores_keep_more_than_bf16(random):
    states, weight = random(7, 64, dtype=BF16), random(91, 64, dtype=BF16)
    ours, exact = products.head_scores(states, products.pack(weight), 91), states.double() @ weight.double().T
    assert (ours - exact).abs().max() < 1e-4
    with torch.no_grad():
        assert torch.equal(log_probs.head_logits(states, weight), ours)


def test_drawing_follows_the_probabilities():
    """A hundred thousand draws from one row; -inf is never drawn, whatever the uniform number."""
    scores = torch.tensor([[0.0, 2.0, float("-inf"), 1.0, -1.0] + [float("-inf")] * 20 + [0.5]])
    uniforms = (torch.arange(100_000) + 0.5) / 100_000
    tokens, given, entropy, _ = kernels.draw(scores.expand(100_000, -1), uniforms, 0.8)
    expected = (scores / 0.8).log_softmax(-1)[0]
    counts = torch.bincount(tokens, minlength=26) / 100_000
    assert (counts - expected.exp()).abs().max() < 1e-4
    torch.testing.assert_close(given, expected[tokens], rtol=1e-5, atol=1e-5)
    kept = expected[expected > -1e9]
    torch.testing.assert_close(entropy[0], -(kept.exp() * kept).sum(), rtol=1e-4, atol=1e-4)
    edges = kernels.draw(scores.expand(2, -1), torch.tensor([0.0, 1.0 - 2**-24]), 1.0)[0]
    assert edges.tolist() == [0, 25]


@pytest.mark.parametrize("size", [1, 15, 16, 17, 63, 64, 65, 127, 128, 150])
def test_the_likeliest_is_found_wherever_it_is(size, random):
    """Of equal ones the first."""
    scores = random(size, size) - 10
    scores.fill_diagonal_(1.0)
    scores[:-1, -1] = 1.0  # another as likely at the end
    tokens, given, *_ = kernels.draw(scores, torch.zeros(size), 0.0)
    assert tokens.tolist() == list(range(size))
    torch.testing.assert_close(given, scores.log_softmax(-1).diagonal(), rtol=1e-5, atol=1e-5)
    assert kernels.draw(torch.full((1, size), float("nan")), torch.zeros(1), 0.0)[1].isnan()


def test_exponentials_are_exact_to_fp32():
    """Of two tokens whose scores lie d apart the first has −log(1 + e⁻ᵈ); beyond fp32's range nothing is left."""
    distances = torch.cat([torch.linspace(0, 86, 100_001), torch.tensor([88.0, 1e4, float("inf")])])
    scores = torch.stack([torch.zeros_like(distances), -distances], dim=1)
    tokens, given, *_ = kernels.draw(scores, torch.zeros(len(distances)), 1.0)
    assert tokens.max() == 0
    torch.testing.assert_close(given.double(), scores.double().log_softmax(-1)[:, 0], rtol=0, atol=2e-7)
    tokens, given, *_ = kernels.draw(scores[:90_000], torch.ones(90_000), 1.0)
    torch.testing.assert_close(
        given.double(),
        scores[:90_000].double().log_softmax(-1).gather(1, tokens[:, None])[:, 0],
        rtol=2e-7,
        atol=2e-7,
    )


@pytest.mark.parametrize("has_branches", [False, True])
@pytest.mark.parametrize(
    "name", ["qwen3", "llama", "deepseek_v3", "deepseek_v3 mtp", "deepseek_v3 mtp absorbed"]
)
def test_a_model_computes_the_same_with_and_without(name, has_branches, monkeypatch):
    """Whole models in bf16: as near to fp32 as the plain forms are, in log-probabilities and gradients."""
    model = lane_sized(name.removesuffix(" absorbed"))
    model.absorb_latents(name.endswith("absorbed"))
    segments, parents = branched(3, 40) if has_branches else (packed(3, 40), None)
    tokens = torch.randint(0, 97, (3, 40), generator=torch.Generator().manual_seed(1))

    def run(dtype):
        model.zero_grad()
        states = model(tokens, segments, dtype, parents=parents).states.flatten(0, 1)
        values = log_probs.target_log_probs(states, model.head_weight, tokens.flatten())
        values.sum().backward()
        return values.detach(), torch.cat(
            [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        )

    exact, fused = run(torch.float32), run(BF16)
    for module in (attention, layers, rotary, log_probs):
        monkeypatch.setattr(module, "fits", lambda *_: False)
    without = run(BF16)
    for wanted, ours, theirs in zip(exact, fused, without, strict=True):
        error, allowed = ((x - wanted).norm() / wanted.norm() for x in (ours, theirs))
        assert error < 1.5 * allowed + 1e-3
