"""Products on AMX beside the same products on AVX-512, and every row alone beside all of them."""

import pytest
import torch

from clearseek.model import attention, log_probs
from clearseek.model.kernels import library, products
from tests.model.kernel_inputs import BF16, branched, lane_sized, packed

requires_kernels = pytest.mark.skipif(
    library.why_not() is not None, reason=f"no kernels: {library.why_not()}"
)
requires_tiles = pytest.mark.skipif(
    library.why_not() is not None or not library.has_tiles(), reason="no AMX here, or none wanted"
)
SIZES = [(16, 16), (48, 80), (272, 32), (64, 208), (128, 112)]


@pytest.fixture
def without_tiles(monkeypatch):
    """A function that computes another one with the kernels that a processor without AMX builds."""

    def compute(function):
        with monkeypatch.context() as patch:
            patch.setenv(library.OFF, "avx512")
            loaded = library._load.__wrapped__()
            assert loaded[1] is None
            patch.setattr(library, "_load", lambda: loaded)
            return function()

    return compute


def linear(x, weight, int8):
    """Result and both gradients."""
    y = products.Linear.apply(x, weight, int8)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(BF16)
    return y, *torch.autograd.grad(y, (x, weight), dy)


@requires_tiles
@pytest.mark.parametrize("rows", [1, 16, 47, 301])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_int8_is_the_same_bit_for_bit(random, without_tiles, rows, inputs, outputs):
    x, weight = random(rows, inputs, dtype=BF16), random(outputs, inputs)
    wanted = without_tiles(lambda: linear(x, weight, True))
    for ours, theirs in zip(linear(x, weight, True), wanted, strict=True):
        assert torch.equal(ours, theirs)


@requires_tiles
@pytest.mark.parametrize("has_branches", [False, True])
@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3 mtp"])
def test_a_model_is_the_same_up_to_rounding(without_tiles, name, has_branches):
    """And not to the bit: were it so, one of the two would not have run."""
    model = lane_sized(name)
    segments, parents = branched(3, 70) if has_branches else (packed(3, 70), None)
    tokens = torch.randint(0, 97, (3, 70), generator=torch.Generator().manual_seed(1))

    def run():
        model.zero_grad()
        states = model(tokens, segments, BF16, parents=parents).states.flatten(0, 1)
        values = log_probs.target_log_probs(states, model.head_weight, tokens.flatten())
        values.sum().backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        return values.detach(), torch.cat(gradients)

    for ours, theirs in zip(run(), without_tiles(run), strict=True):
        assert not torch.equal(ours, theirs)
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


@requires_kernels
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
def test_a_row_is_the_same_bits_beside_any_others(random, inputs, outputs, int8):
    """One alone, a tile's, one more, and where a block of rows ends: none tells how many there were."""
    x, weight = random(113, inputs, dtype=BF16), random(outputs, inputs)
    whole, dx, _ = linear(x, weight, int8)
    dy = torch.randn(whole.shape, generator=torch.Generator().manual_seed(1)).to(BF16)
    for first, last in ((0, 1), (7, 23), (16, 33), (40, 113)):
        part = x.detach()[first:last].clone().requires_grad_()
        y = products.Linear.apply(part, weight, int8)
        assert torch.equal(y, whole[first:last])
        assert torch.equal(torch.autograd.grad(y, part, dy[first:last])[0], dx[first:last])


@requires_kernels
@pytest.mark.parametrize("size", [16, 48, 64])
def test_a_score_is_the_same_bits_beside_any_others(random, size):
    states, weight = random(71, size, dtype=BF16), random(97, size, dtype=BF16)
    whole = products.head_scores(states, products.pack(weight), 97)
    for first, last in ((0, 1), (5, 21), (32, 71)):
        assert torch.equal(
            products.head_scores(states[first:last], products.pack(weight), 97), whole[first:last]
        )


@requires_kernels
@pytest.mark.parametrize("place", [16, 33, 48, 100])
def test_a_document_is_the_same_bits_wherever_others_end(random, place):
    """Behind a document of any length within its block of 32: what is summed together is told by positions alone."""
    many = 48  # bf16 hides most of what fp32 would tell
    query, key = random(many, 160, 2, 48, dtype=BF16), random(many, 160, 2, 48, dtype=BF16)

    def run(first):
        segments = torch.ones(many, 160, dtype=torch.int32)
        segments[:, first:] = 2
        segments[:, place:] = 3
        visible = attention.Visible.of(segments, BF16)
        return attention.attend_packed(query, key, None, key, visible, 0.3)[:, place:]

    assert torch.equal(run(place // 2), run(place - 1))


def test_a_variable_that_is_not_known_is_an_error(monkeypatch):
    monkeypatch.setenv(library.OFF, "amx")
    with pytest.raises(ValueError, match="CLEARSEEK_KERNELS=amx is not known; set it to 0"):
        library._missing()


@pytest.mark.parametrize("missing", ["amx_tile", "amx_bf16", "amx_int8"])
def test_a_processor_without_all_of_amx_has_no_tiles(monkeypatch, missing):
    monkeypatch.setattr(library, "_processor_flags", lambda: library._TILES - {missing})
    assert not library.has_tiles()


def test_a_system_that_refuses_the_tiles_has_none(monkeypatch):
    """As Linux before 5.16 does, and gVisor."""

    class Refusing:
        @staticmethod
        def syscall(*_):
            return -1

    monkeypatch.delenv(library.OFF, raising=False)
    monkeypatch.setattr(library, "_processor_flags", lambda: library._TILES)
    monkeypatch.setattr(library.ctypes, "CDLL", lambda _: Refusing)
    assert not library.has_tiles()
