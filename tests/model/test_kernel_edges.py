"""What the kernels are seldom given: strange strides, no rows, numbers that are none, sizes beyond their scratch."""

import pytest
import torch

from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.model import attention, layers, log_probs, rotary
from clearseek.model.experts import routing_of
from clearseek.model.kernels import functions as kernels
from clearseek.model.kernels import library, products
from tests.model.kernel_inputs import BF16, assert_same, lane_sized, packed, rms
from tests.model.tiny import CONFIGS

pytestmark = pytest.mark.skipif(library.why_not() is not None, reason=f"no kernels: {library.why_not()}")


def slice_of(x, size):
    """x as a slice of wider rows and of a longer batch row: no stride is what its shape says."""
    wide = torch.full((x.shape[0], x.shape[1] + 3, *x.shape[2:-1], size), 7.0, dtype=x.dtype)
    view = wide[:, : x.shape[1], ..., : x.shape[-1]]
    return view.copy_(x.detach()).requires_grad_()


def test_attention_of_slices(random):
    """Rows of a batch that lie further apart than their tokens do, heads that are part of wider ones."""
    plain_inputs = [random(3, 20, 2, size, dtype=BF16) for size in (48, 32, 16)]
    shared, visible = random(3, 20, 16, dtype=BF16), attention.Visible.of(packed(3, 20), BF16)

    def run(query, key, value, shared):
        mixed = attention.attend_packed(query, key, shared, value, visible, 0.3)
        return mixed, *torch.autograd.grad(mixed.float().square().sum(), (query, key, value, shared))

    wanted = run(*plain_inputs, shared)
    ours = run(*(slice_of(x, x.shape[-1] + 16) for x in plain_inputs), slice_of(shared, 48))
    for mine, theirs in zip(ours, wanted, strict=True):
        assert torch.equal(mine, theirs)


def test_what_is_no_number_stays_none(random):
    """A NaN must reach the loss and the sampler's records: nobody would notice it otherwise."""
    scores = torch.zeros(2, 40)
    scores[0, 3] = float("nan")
    tokens, log_probs_drawn, entropies, _ = kernels.draw(scores, torch.tensor([0.5, 0.5]), 1.0)
    assert log_probs_drawn.isnan().tolist() == entropies.isnan().tolist() == [True, False]
    assert int(tokens.max()) < 40
    states, weight = random(2, 32, dtype=BF16).detach(), random(20, 32)
    states[0] = float("nan")
    values = log_probs.target_log_probs(states, weight, torch.tensor([1, 2]))
    assert values.isnan().tolist() == [True, False]
    query, key = random(1, 20, 1, 32, dtype=BF16).detach(), random(1, 20, 1, 32, dtype=BF16).detach()
    key[0, 5] = float("nan")
    visible = attention.Visible.of(torch.ones(1, 20), BF16)
    mixed = attention.attend_packed(query, key, None, query, visible, 0.2)
    assert mixed.isnan().any(-1).flatten().tolist() == [False] * 5 + [True] * 15


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_router_without_numbers_chooses_as_many(random, value):
    scores = random(9, 8).detach()
    scores[1], scores[4, 2:5] = value, value
    config = CONFIGS["deepseek_v3"].model_copy(
        update={"num_experts_per_token": 3, "num_expert_groups": 1, "num_limited_groups": 1}
    )
    _, chosen, gates = kernels.Route.apply(scores, torch.zeros(8), routing_of(config))
    assert chosen.sum(-1).tolist() == [3] * 9
    assert torch.equal(gates[4].isnan().any(), torch.tensor(value != value))
    assert not gates[[0, 2, 3, 5, 6, 7, 8]].isnan().any()


def test_marks_beyond_an_expert_s_number_are_left_out(random):
    """The plain router marks every expert of a token whose scores are NaN; memory must not suffer."""
    x, gates = random(5, 32, dtype=BF16), torch.rand(5, 4)
    gate_up, down = random(4, 32, 32, dtype=BF16), random(4, 32, 16, dtype=BF16)
    chosen = torch.tensor([[1, 1, 0, 0]] * 5, dtype=torch.bool)
    wanted = products.FeedForward.apply(x, gate_up, down, chosen, gates, 2)
    chosen[3] = True
    assert torch.equal(products.FeedForward.apply(x, gate_up, down, chosen, gates, 2), wanted)


@pytest.mark.parametrize("target", [-1, 20])
def test_a_target_outside_the_vocabulary_is_an_error(random, target):
    with pytest.raises(IndexError, match="vocabulary of 20"):
        log_probs.target_log_probs(random(2, 32, dtype=BF16), random(20, 32), torch.tensor([0, target]))


def test_nothing_to_compute_gives_nothing(random):
    """No rows at all, in every kernel that a batch may reach so."""
    x, weight, none = random(0, 32, dtype=BF16), random(32), torch.zeros(0, dtype=torch.long)
    kernels.RmsNorm.apply(x, weight, 1e-6, BF16).sum().backward()
    assert weight.grad.tolist() == [0.0] * 32
    assert kernels.SwiGlu.apply(x, None, 1).shape == (0, 16)
    assert log_probs.target_log_probs(x, random(20, 32), none).shape == (0,)
    assert products.head_scores(x.detach(), products.pack(random(20, 32)), 20).shape == (0, 20)
    mapped = products.FeedForward.apply(
        products.Linear.apply(x, random(48, 32)), random(1, 64, 48), random(1, 48, 32)
    )
    assert mapped.shape == (0, 48)
    mapped.sum().backward()
    assert kernels.draw(torch.zeros(0, 20), torch.zeros(0), 1.0)[0].shape == (0,)
    visible = attention.Visible.of(torch.zeros(0, 7), BF16)
    heads, shared = x.view(0, 7, 2, 32), random(0, 7, 16, dtype=BF16)
    query = random(0, 7, 2, 48, dtype=BF16)
    assert attention.attend_packed(query, heads, shared, heads, visible, 1.0).shape == (0, 7, 2, 32)


def test_single_states_and_vectors(random):
    """Without rows in front, as the plain forms take them."""
    state, weight = random(32, dtype=BF16).detach(), random(20, 32).detach()
    with torch.no_grad():
        assert_same(log_probs.head_logits(state, weight), weight.bfloat16().double() @ state.double())
    norm = layers.RMSNorm(32, 1e-6)
    assert_same(norm(state), rms(state.double(), norm.weight.double()))


def test_a_head_larger_than_the_scratch_is_turned_plainly(random):
    cos, sin = torch.ones(4, 32), torch.zeros(4, 32)
    x = random(1, 4, 1, library.MAX_HEAD + 64, dtype=BF16)
    assert torch.equal(rotary.rotate(x, rotary.Turn(cos, sin)), x)


def test_a_rotary_table_may_be_in_bf16(random):
    """`Decoder.to(bfloat16)` rounds the table too; its bytes must not be read as fp32."""
    x, angles = random(1, 6, 2, 32, dtype=BF16).detach(), torch.arange(6.0)[:, None] * torch.ones(16)
    cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
    assert torch.equal(
        rotary.rotate(x, rotary.Turn(cos, sin)), rotary.rotate(x, rotary.Turn(cos.float(), sin.float()))
    )


def test_a_number_of_threads_gives_the_same_bytes(random):
    """Two runs with two threads."""
    model = lane_sized("deepseek_v3 mtp")
    tokens = torch.randint(0, 97, (5, 40), generator=torch.Generator().manual_seed(1))

    def run():
        model.zero_grad()
        states = model(tokens, packed(5, 40), BF16).states.flatten(0, 1)
        log_probs.target_log_probs(states, model.head_weight, tokens.flatten()).sum().backward()
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    torch.set_num_threads(2)
    first, second = run(), run()
    torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(first, second, strict=True))


@pytest.mark.parametrize("tied", [True, False])
def test_new_weights_are_decoded_with(tied):
    """The engine's packed copies follow its model's weights, the head's too."""
    model = lane_sized("qwen3", tie_word_embeddings=tied)
    engine = Engine(model, [0], BF16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(7)))
    engine.load_weights(model)
    request = [Request((5, 6, 7), 8, 3, Sampling(1.0, 1.0, 4))]
    ours, wanted = (e.generate(request)[0] for e in (engine, Engine(model, [0], BF16)))
    assert [c.log_probs for c in ours] == [c.log_probs for c in wanted]
