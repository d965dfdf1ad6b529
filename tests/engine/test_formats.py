"""Quantised weights: laid out and multiplied by the kernels as the plain formulas say, and as GGUF rounds."""

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine.formats import (
    GROUPS,
    Format,
    Quantised,
    dequantise,
    lay_out,
    lay_out_quantised,
    product,
    quantise,
)
from clearseek.model.gguf.storage import decode, encode
from clearseek.model.kernels import library

kernels = pytest.mark.skipif(bool(library.why_not()), reason=f"no kernels here: {library.why_not()}")


def weight_of(outputs, inputs, dtype=torch.float32):
    return torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(outputs)).to(dtype)


@kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "group"), [("int8", 32), ("int8", 128), ("q4_0", 32), ("int4", 32), ("int4", 64)]
)
@pytest.mark.parametrize("outputs", [16, 64, 112])
@pytest.mark.parametrize("rows", [1, 2, 3, 7, 40])
def test_products_are_those_of_the_dequantised_weight(name, group, outputs, rows, dtype):
    form, weight = Format(name, group), weight_of(outputs, 256, dtype)
    x = torch.randn(rows, 256, generator=torch.Generator().manual_seed(3)).bfloat16()
    parts = quantise(weight, form)
    found = product(x, lay_out(weight, form), outputs, form)
    assert torch.equal(found, product(x, lay_out_quantised(parts, form), outputs, form))
    wanted = x.float() @ dequantise(parts, form).T
    # activations are rounded to int8 too: half a step of each group
    assert (found - wanted).norm() / wanted.norm() < 0.01


@kernels
@pytest.mark.parametrize("name", ["float32", "bfloat16"])
@pytest.mark.parametrize("rows", [1, 4, 5, 50])
def test_products_of_plain_weights(name, rows):
    form, weight = Format(name), weight_of(80, 96)
    dtype = torch.float32 if name == "float32" else torch.bfloat16
    x = torch.randn(rows, 96, generator=torch.Generator().manual_seed(3)).to(dtype)
    wanted = x.float() @ weight.to(dtype).float().T
    torch.testing.assert_close(product(x, lay_out(weight, form), 80, form), wanted, rtol=1e-4, atol=1e-4)


@kernels
@pytest.mark.parametrize(
    ("name", "group"),
    [("bfloat16", 32), *[(name, group) for name in ("int8", "int4", "q4_0") for group in GROUPS]],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_s_product_does_not_depend_on_the_others(name, group, dtype):
    """Few rows are multiplied by vectors, many in tiles where the processor has them: the bits are the same."""
    form, weight = Format(name, group), weight_of(80, 3 * group)
    x, laid = torch.randn(40, 3 * group).to(dtype), lay_out(weight, form)
    together = product(x, laid, 80, form)
    for count in range(1, 40):
        assert torch.equal(product(x[:count], laid, 80, form), together[:count])


def by_gguf(weight, kind):
    gguf = pytest.importorskip("gguf")
    kind = gguf.GGMLQuantizationType[kind]
    return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind))


def test_int8_is_rounded_as_gguf_s():
    weight, form = weight_of(48, 128), Format("int8")
    assert torch.equal(dequantise(quantise(weight, form), form), by_gguf(weight, "Q8_0"))


@pytest.mark.parametrize(("tails", "most"), [(1.0, 0.96), (3.0, 0.995)])
def test_int4_is_nearer_than_gguf_s(tails, most):
    """Also with scales of a byte, which take a quarter of a bit less."""
    weight = weight_of(256, 512) * weight_of(256, 512).abs() ** (tails - 1)
    halves, whole, theirs = (
        (rounded - weight).square().unflatten(1, (-1, 32)).sum(-1)
        for rounded in (
            *(dequantise(quantise(weight, form), form) for form in (Format("q4_0"), Format("int4"))),
            by_gguf(weight, "Q4_0"),
        )
    )
    assert (halves <= theirs * (1 + 1e-6)).all()
    assert halves.sum() < most * theirs.sum()
    assert whole.sum() < 1.002 * halves.sum()


def test_scales_of_a_byte_follow_their_output():
    """An output a thousand times the next has its own units; a group far below its output's largest keeps a scale."""
    form, weight = Format("int4"), weight_of(4, 256) * torch.tensor([1e3, 1.0, 1e-3, 0.0])[:, None]
    weight[1, 32:64] *= 1e-4
    parts = quantise(weight, form)
    off = (dequantise(parts, form) - weight).norm(dim=1)
    assert (off[:3] / weight[:3].norm(dim=1) < 0.1).all()
    assert off[3] == 0
    assert parts.scales[1, 1].abs() == 1


@kernels
@pytest.mark.parametrize(("name", "kind"), [("int8", "Q8_0"), ("q4_0", "Q4_0")])
def test_blocks_of_a_gguf_file_are_laid_out_as_they_are(name, kind):
    """Read as fp32 and rounded again they are the same bytes: no number of a file in Q8_0 or Q4_0 changes."""
    pytest.importorskip("gguf")
    weight, form = weight_of(112, 256) * torch.logspace(-3, 2, 112)[:, None], Format(name, 32)
    raw = encode(weight.numpy(), kind)
    blocks = torch.from_numpy(raw.reshape(112, 8, -1))
    scales, numbers = blocks[..., :2].contiguous().view(torch.float16).squeeze(-1), blocks[..., 2:]
    whole = numbers.view(torch.int8).int() + 128
    if name == "q4_0":
        whole = torch.cat((numbers & 15, numbers >> 4), -1)
    stored = Quantised(whole.to(torch.uint8).flatten(1), scales)
    read = torch.from_numpy(decode(raw, kind, (112, 256)))
    assert torch.equal(dequantise(stored, form), read)
    assert torch.equal(lay_out(read, form), lay_out_quantised(stored, form))


def test_nothing_is_nothing():
    for name in ("int8", "int4", "q4_0"):
        form = Format(name)
        assert not dequantise(quantise(torch.zeros(16, 64), form), form).any()


def test_unknown_formats_and_groups_are_refused():
    with pytest.raises(InputError, match="int3 is no weight format"):
        Format("int3")
    with pytest.raises(InputError, match=r"float32, bfloat16, int8, int4, fp8$"):
        Format("int5")
    with pytest.raises(InputError, match="group 48"):
        Format("int8", 48)
