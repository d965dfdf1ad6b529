"""The GPU's kernels for rows against PyTorch: norms, rotary positions, activations, experts' sums; odd sizes."""

import pytest

pytest.importorskip("triton", reason="triton is not installed; make test-gpu brings it")

import torch
import torch.nn.functional as F

from clearseek.config.model import ModelConfig
from clearseek.engine.gpu.activation import swiglu, weigh
from clearseek.engine.gpu.experts import sort_by_expert
from clearseek.engine.gpu.norms import add_rms_norm, rms_norm
from clearseek.engine.gpu.rotary import rotate
from clearseek.model import rotary
from clearseek.model.experts import MixtureOfExperts
from clearseek.model.layers import RMSNorm
from tests.engine.gpu.device import DEVICE, normal
from tests.model.tiny import LATENT

DTYPES = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [16, 48, 130])
def test_a_norm_is_pytorch_s(size, dtype):
    x, weight = normal(5, size), normal(size, seed=1)
    wanted = F.rms_norm(x, (size,), weight, 1e-5)
    found = rms_norm(x, weight, 1e-5, dtype)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=DTYPES[dtype], atol=1e-5)
    delta, stream = normal(5, size, dtype=dtype, seed=2), x.clone()
    found = add_rms_norm(stream, delta, weight, 1e-5)
    assert torch.equal(stream, x + delta.float())
    wanted = F.rms_norm(stream, (size,), weight, 1e-5)
    torch.testing.assert_close(found.float(), wanted, rtol=DTYPES[dtype], atol=1e-5)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pairs", [False, True])
@pytest.mark.parametrize("when", ["never", "before", "after"])
@pytest.mark.parametrize(("size", "turned", "first"), [(64, 64, True), (80, 20, True), (24, 8, False)])
def test_heads_are_turned_as_the_model_turns_them(size, turned, first, when, pairs, dtype):
    heads, rows = 3, 4
    table = rotary.rotary_table(ModelConfig(**LATENT | {"qk_rope_head_dim": turned}), 90, DEVICE)
    positions = torch.tensor([0, 1, 70, 89], device=DEVICE)
    norm = RMSNorm(size, 1e-5).to(DEVICE)
    norm.weight.data = normal(size, seed=3)
    beside = normal(rows, heads * size + 7, dtype=dtype)  # rows of a wider product
    x = beside[:, : heads * size].unflatten(-1, (heads, size))
    tables = table[0].contiguous(), table[1].contiguous()
    given = None if when == "never" else (norm.weight, norm.eps)
    found = rotate(x, tables, positions, given, pairs, first, when == "after")
    turn = rotary.Turn(table[0][positions][None], table[1][positions][None])
    wanted = rotary.rotate(
        x[None].float(), turn, None if when == "never" else norm, pairs, first, when == "after"
    )[0]
    torch.testing.assert_close(found.float(), wanted, rtol=DTYPES[dtype], atol=DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("limit", [None, 0.7])
def test_activations_are_the_experts(limit, dtype):
    layer = MixtureOfExperts(ModelConfig(**LATENT))
    layer.limit, layer.alpha = limit, 1.702
    x = normal(3, 2 * 1100, dtype=dtype)
    wanted = layer.activate(x.float())
    found = swiglu(x, limit, 1.702)
    torch.testing.assert_close(found.float(), wanted.float(), rtol=DTYPES[dtype], atol=1e-5)


@pytest.mark.parametrize("count", [1, 3, 150])
def test_rows_are_sorted_by_expert_into_tiles(count):
    experts, chosen = 6, 2
    scores = torch.rand(count, experts, generator=torch.Generator().manual_seed(0))
    found = scores.topk(chosen).indices.to(DEVICE)
    tiles, owner, places = sort_by_expert(found, experts)
    seen = torch.zeros(count * chosen, dtype=torch.long)
    for first, rows, matrix in zip(
        *(part.tolist() for part in (tiles.firsts, tiles.counts, tiles.matrices)), strict=True
    ):
        assert (owner[first : first + rows] == matrix).all()
        seen[first : first + rows] += 1
    assert (seen == 1).all()
    assert torch.equal(owner[places], found)
    assert torch.equal(tiles.rows[places], torch.arange(count, device=DEVICE)[:, None].expand(-1, chosen))


@pytest.mark.parametrize("dtype", DTYPES)
def test_outputs_are_weighed_and_summed(dtype):
    outputs, gates = normal(10, 70, dtype=dtype), normal(5, 2, seed=1)
    places = torch.randperm(10, generator=torch.Generator().manual_seed(2)).view(5, 2).to(DEVICE)
    wanted = (outputs[places].float() * gates[..., None]).sum(1)
    found = weigh(outputs, places, gates)
    torch.testing.assert_close(found.float(), wanted, rtol=DTYPES[dtype], atol=DTYPES[dtype])
