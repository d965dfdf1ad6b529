"""Parts of a model in formats of their own: as text, and as what the kernels then multiply."""

import copy

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format, dequantise, quantise
from clearseek.engine.fused_runner import FusedRunner
from clearseek.engine.layout import Layout, why_plain
from clearseek.engine.mixed_formats import Formats, part_names, read_formats
from clearseek.model.kernels.library import why_not
from tests.engine.test_fused_runner import model_of, rows_of, some_tokens
from tests.model.kernel_inputs import lane_sized

needs_kernels = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
LENGTH = 40
MATRICES = {
    "attention": ("attention.q.weight", "attention.kv.weight", "attention.out.weight"),
    "feed_forward": (
        "feed_forward.gate_up.weight",
        "feed_forward.down.weight",
        "shared.gate_up",
        "shared.down",
    ),
    "experts": ("feed_forward.gate_up", "feed_forward.down"),
    "head": ("head.weight", "embedding.weight"),
}


def scores(model, form):
    layout = Layout(model, form)
    rows = rows_of(some_tokens(model.config, 2, LENGTH), (0, 0, LENGTH), (1, 0, LENGTH))
    return FusedRunner(layout, 8).step(rows), layout.num_bytes


@needs_kernels
@pytest.mark.parametrize("name", ["qwen3", "deepseek_v3"])
def test_every_part_in_another_format_is_that_format(name):
    model = model_of(name)
    every = Formats(Format("int4"), tuple((part, Format("int8")) for part in part_names(model)))
    (mixed, mixed_bytes), (whole, whole_bytes) = scores(model, every), scores(model, Format("int8"))
    assert torch.equal(mixed, whole)
    assert mixed_bytes == whole_bytes


def rounded(model, part, form):
    """A copy of a model that holds the numbers which a part's quantised weights stand for."""
    rounded = copy.deepcopy(model)
    for name, weight in rounded.named_parameters():
        if weight.ndim > 1 and name.endswith(MATRICES[part]) and "router" not in name:
            weight.data = dequantise(quantise(weight.data, form), form).view_as(weight)
    return rounded


@needs_kernels
@pytest.mark.parametrize(
    ("name", "part"),
    [("qwen3", "attention"), ("qwen3", "feed_forward"), ("deepseek_v3", "experts")],
)
def test_a_part_is_kept_as_it_is_asked_and_nothing_else_changes(name, part):
    model, form = model_of(name), Format("int4")
    plain, _ = scores(model, Format("float32"))
    found, _ = scores(model, Formats(Format("float32"), ((part, form),)))
    wanted, _ = scores(rounded(model, part, form), Format("float32"))
    # what is left is how the product rounds the states that it takes
    assert (found - wanted).norm() < 0.1 * (plain - wanted).norm()


@needs_kernels
def test_a_layer_s_own_format():
    model = model_of("qwen3")
    one = scores(model, Formats(Format("bfloat16"), (("layers.1.*", Format("int8")),)))[1]
    by_part = (("layers.1.attention", Format("int8")), ("layers.1.feed_forward", Format("int8")))
    assert one == scores(model, Formats(Format("bfloat16"), by_part))[1]
    assert scores(model, Format("int8"))[1] < one < scores(model, Format("bfloat16"))[1]


def test_parts_have_names():
    assert part_names(model_of("deepseek_v3"))[:6] == [
        "head", "layers.0.attention", "layers.0.feed_forward",
        "layers.1.attention", "layers.1.feed_forward", "layers.1.experts",
    ]  # fmt: skip


def test_the_last_pattern_that_matches_counts():
    forms = read_formats("int4,*=int8,layers.?.attention=bfloat16,layers.2.*=float32")
    parts = ("head", "layers.1.attention", "layers.1.experts", "layers.2.attention")
    assert [forms.of(part).name for part in parts] == ["int8", "bfloat16", "int8", "float32"]


def test_sizes_have_to_fit_where_any_part_is_quantised():
    model = model_of("qwen3")
    model.config = model.config.model_copy(update={"intermediate_size": 48})
    assert why_plain(model, Formats(Format("bfloat16"), (("head", Format("int8")),)))


def test_formats_are_read():
    assert [read_formats(text) for text in ("float32", "int8", "int4:128")] == [
        Format("float32"), Format("int8", 32, widens=True), Format("int4", 128),
    ]  # fmt: skip
    assert read_formats("int4:64,head=int8,experts=bfloat16") == Formats(
        Format("int4", 64), (("head", Format("int8", 64)), ("experts", Format("bfloat16", 64)))
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("int5", "'int5' is no weight format; there are float32, bfloat16, int8, int4"),
        ("int8:", "'int8:' is no weight format; a group stands behind int8 or int4, as in int4:32"),
        ("bfloat16:32", "'bfloat16:32' is no weight format; a group stands behind int8 or int4"),
        ("int4:48", "group 48: weights can be quantised in groups of 32, 64 or 128 inputs"),
        ("int4:32,head=int8:64", "a model's weights have one group, not 32 and 64"),
        ("int4,head", "'head' in 'int4,head' is not PATTERN=FORMAT, such as head=int8"),
        ("int4,=int8", "'' in 'int4,=int8' is not PATTERN=FORMAT"),
        ("int4,head=", "'' is no weight format"),
    ],
)
def test_formats_that_are_none_are_refused(text, says):
    with pytest.raises(InputError, match=says):
        read_formats(text)


def test_a_part_that_a_model_has_not_is_refused():
    with pytest.raises(
        InputError, match="no part of this model is called 'experts'; there are head, attention, feed_"
    ):
        Engine(model_of("qwen3"), (), torch.float32, form=read_formats("bfloat16,experts=int4"))


@needs_kernels
@pytest.mark.parametrize(
    ("text", "sizes", "group"),
    [
        ("int8", {"hidden_size": 256, "intermediate_size": 384}, 128),
        ("int8,head=bfloat16", {"hidden_size": 256, "intermediate_size": 320}, 64),
        ("int8", {"hidden_size": 256, "intermediate_size": 352}, 32),
        ("int8:32", {"hidden_size": 256, "intermediate_size": 384}, 32),
        ("int4", {"hidden_size": 256, "intermediate_size": 384}, 32),
        ("int8,head=int4", {"hidden_size": 256, "intermediate_size": 384}, 32),
    ],
)
def test_int8_alone_takes_the_widest_group_that_suits_the_model(text, sizes, group):
    model = lane_sized("qwen3", num_heads=4, head_dim=64, num_key_value_heads=2, **sizes)
    form = Engine(model, (), torch.bfloat16, form=read_formats(text)).form
    assert (form.group, form.widens) == (group, False)
