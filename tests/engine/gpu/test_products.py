"""The GPU's products against PyTorch: every format, odd shapes, one matrix, one a head and one an expert."""

import pytest

pytest.importorskip("triton", reason="triton is not installed; make test-gpu brings it")

import torch

from clearseek.engine.formats import FP8_BLOCK, Format, dequantise, quantise
from clearseek.engine.gpu.experts import sort_by_expert
from clearseek.engine.gpu.products import product, product_by_head, product_by_tile, round_fp8, stretch_of
from clearseek.engine.gpu.weights import FP8, FP8_MOST, Weight, fp8_blocks
from tests.engine.gpu.device import DEVICE, IS_CUDA, normal

FORMS = [
    Format("float32"), Format("bfloat16"), Format("int8"), Format("int8", 128), Format("int4"), Format("int4", 64),
    Format("fp8"),
]  # fmt: skip
SHAPES = [(3, 70, 128), (67, 40, 256), (2, 24, 2048)]  # the last in several stretches of inputs
DTYPES = torch.float32, torch.bfloat16


def widened(blocks: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """A scale for every number, of those of blocks."""
    wide = blocks.repeat_interleave(FP8_BLOCK, 0).repeat_interleave(FP8_BLOCK, 1)
    return wide[: shape[0], : shape[1]]


def meant(weight: torch.Tensor, form: Format) -> torch.Tensor:
    """The numbers that a weight [O, I] stands for in a format, by PyTorch, in fp64."""
    if form.name == "fp8":
        numbers, scales = fp8_blocks(weight)
        return numbers.double() * widened(scales, weight.shape).double()
    if form.is_quantised:
        rounded = Format("q4_0", form.group) if form.name == "int4" else form
        return dequantise(quantise(weight, rounded), rounded).double()
    return weight.to(getattr(torch, form.name)).double()


def read(x: torch.Tensor, form: Format) -> torch.Tensor:
    """Rows as a product in that format reads them, in fp64."""
    if form.name != "fp8":
        return x.double()
    numbers, scales = round_fp8(x.flatten(0, -2))
    return (numbers.double() * scales.repeat_interleave(FP8_BLOCK, 1)[:, : x.shape[-1]]).view(x.shape)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name}:{form.group}")
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_that_of_the_numbers_the_weight_stands_for(shape, form, dtype):
    rows, outputs, inputs = shape
    x, weight = normal(rows, inputs, dtype=dtype), normal(outputs, inputs, seed=1)
    wanted = read(x, form) @ meant(weight, form).T
    found = product(x, Weight.of(weight, form), torch.float32)
    assert (found - wanted).norm() / wanted.norm() < 1e-6
    rounded = product(x, Weight.of(weight, form))
    assert rounded.dtype == dtype
    assert (rounded - wanted).norm() / wanted.norm() < (1e-6 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name}:{form.group}")
def test_a_row_s_bits_do_not_depend_on_the_others(form):
    x, weight = normal(70, 1024, dtype=torch.bfloat16), Weight.of(normal(24, 1024, seed=1), form)
    assert stretch_of(24, 1024, 1) < 1024
    together = product(x, weight)
    for rows in (slice(0, 1), slice(3, 4), slice(2, 69)):
        assert torch.equal(product(x[rows], weight), together[rows])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name}:{form.group}")
def test_each_head_has_its_matrix(form, dtype):
    heads, outputs, inputs = 3, 20, 128
    wide, weight = normal(5, heads, inputs + 10, dtype=dtype), normal(heads, outputs, inputs, seed=1)
    x = wide[..., :inputs]
    wanted = torch.stack([read(x[:, h], form) @ meant(weight[h], form).T for h in range(heads)], 1)
    found = product_by_head(x, Weight.of(weight, form))
    assert (found - wanted).norm() / wanted.norm() < (1e-6 if dtype == torch.float32 else 4e-3)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name}:{form.group}")
def test_each_expert_has_its_matrix(form):
    experts, outputs, inputs, chosen = 5, 20, 128, 2
    x, weight = normal(40, inputs), normal(experts, outputs, inputs, seed=1)
    scores = torch.rand(40, experts, generator=torch.Generator().manual_seed(2))
    tiles, owner, _ = sort_by_expert(scores.topk(chosen).indices.to(DEVICE), experts)
    wanted = torch.stack([
        read(x[token][None], form)[0] @ meant(weight[expert], form).T
        for token, expert in zip(tiles.rows.tolist(), owner.tolist(), strict=True)
    ])  # fmt: skip
    found = product_by_tile(x, Weight.of(weight, form), tiles, len(owner))
    assert (found - wanted).norm() / wanted.norm() < 1e-6


def test_rows_are_rounded_to_fp8_by_blocks_of_their_own():
    """The interpreter (Triton 3.9) loses the carry of what is rounded up to a power of two, and small numbers."""
    x = normal(4, 200) * torch.tensor([1e-3, 1.0, 50.0, 2.0], device=DEVICE)[:, None]
    numbers, scales = round_fp8(x)
    for block, columns in enumerate((slice(0, 128), slice(128, 200))):
        largest = x[:, columns].abs().amax(1)
        torch.testing.assert_close(scales[:, block], torch.where(largest > 0, largest / FP8_MOST, 1.0))
        scaled = x[:, columns] / scales[:, block, None]
        wanted = scaled.to(FP8).float()
        right = (wanted.frexp().mantissa.abs() != 0.5) & (scaled.abs() >= 2**-6) | IS_CUDA
        assert right.float().mean() > 0.5
        assert torch.equal(numbers[:, columns].float()[right], wanted[right])


@pytest.mark.parametrize("form", FORMS, ids=lambda form: f"{form.name}:{form.group}")
def test_a_weight_becomes_another_in_place(form):
    first, second = normal(30, 128, seed=1), normal(30, 128, seed=2)
    weight, x = Weight.of(first, form), normal(2, 128)
    places = weight.data.data_ptr(), 0 if weight.scales is None else weight.scales.data_ptr()
    weight.take(second)
    assert places == (weight.data.data_ptr(), 0 if weight.scales is None else weight.scales.data_ptr())
    assert torch.equal(product(x, weight), product(x, Weight.of(second, form)))
