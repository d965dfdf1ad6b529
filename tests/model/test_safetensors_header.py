"""The header reader: what the library writes is read as the library reads it; every lie is refused by name."""

import json
import re
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load as library_load
from safetensors.torch import load_file, save, save_file

from clearseek.config.errors import RunError
from clearseek.model.safetensors_header import read_header
from clearseek.model.stored import TORCH_DTYPES, load_tensors, open_tensors

GOOD = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_bytes(header, data=b"\0" * 8):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def refusal(tmp_path, content):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError, match=r"x\.safetensors: torn or not a safetensors file") as caught:
        load_tensors(path)
    return str(caught.value)


def test_every_dtype_is_read_as_the_library_reads_it(tmp_path):
    tensors = {
        f"t.{name}": torch.arange(48, dtype=torch.uint8).view(dtype)
        if dtype != torch.bool
        else torch.ones(5) > 0
        for name, dtype in TORCH_DTYPES.items()
    } | {"scalar": torch.tensor(3.0), "none": torch.empty(3, 0, 2)}
    save_file(tensors, tmp_path / "x.safetensors", {"format": "pt"})
    found, metadata = load_tensors(tmp_path / "x.safetensors")
    expected = load_file(tmp_path / "x.safetensors")
    assert metadata == {"format": "pt"}
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor.dtype == expected[name].dtype
        assert tensor.shape == expected[name].shape
        assert tensor.reshape(-1).view(torch.uint8).equal(expected[name].reshape(-1).view(torch.uint8))


def test_rows_are_those_of_the_tensor(tmp_path):
    whole = torch.randn(7, 3, 2)
    save_file({"before": torch.ones(5), "x": whole}, tmp_path / "x.safetensors")
    with open_tensors(tmp_path / "x.safetensors") as file:
        assert file.rows("x", 2, 6).equal(whole[2:6])


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"a": GOOD | {"shape": [3]}}, "a: F32 with shape \\[3\\] does not fill bytes 0 to 8"),
        ({"a": GOOD | {"shape": [2**62, 2**62]}}, "a: F32 with shape .* does not fill"),
        ({"a": GOOD | {"shape": [2] * 100_000}}, "of 100000 dimensions does not fill"),
        ({"a": GOOD | {"shape": [2**64]}}, "a has sizes that are not whole numbers"),
        ({"a": GOOD | {"shape": [-2]}}, "a has sizes"),
        ({"a": GOOD | {"shape": [2.0]}}, "a has sizes"),
        ({"a": GOOD | {"shape": [True, 2]}}, "a has sizes"),
        ({"a": GOOD | {"data_offsets": [0, 8, 9]}}, "a has sizes"),
        ({"a": GOOD | {"data_offsets": [8, 0]}}, "a: F32 .* does not fill bytes 8 to 0"),
        ({"a": GOOD | {"dtype": "F33"}}, "a has the unknown dtype F33"),
        ({"a": GOOD | {"dtype": ["F32"]}}, "a has the unknown dtype"),
        ({"a": GOOD | {"more": 1}}, "a has to have dtype, shape and data_offsets and nothing more"),
        ({"a": [1]}, "a has to have dtype"),
        ({"a\u001b[2J": GOOD}, "is no name"),
        ({"a": GOOD, "b": GOOD}, "b overlaps what is stored before it"),
        (
            {"a": GOOD | {"shape": [1], "data_offsets": [4, 8]}},
            "a leaves a hole after what is stored before it",
        ),
        ({"a": GOOD | {"shape": [1], "data_offsets": [0, 4]}}, "the tensors end at byte .* of a file of"),
        ({"a": GOOD, "__metadata__": {"x": 1}}, "__metadata__ is not an object of strings"),
        ([GOOD], "the header is not a JSON object"),
        (b'{"a": NaN}', "NaN is not a size"),
        (b'{"a": {}, "a": {}}', "a is there twice"),
        (b'{"a": {"dtype": "F32", "dtype": "F32"}}', "dtype is there twice"),
        (b"[" * 100_000, "the header nests too deeply"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "the header is not JSON"),
        (b"\xff", "the header is not JSON"),
    ],
)
def test_a_lying_header_is_refused(header, message, tmp_path):
    text = refusal(tmp_path, file_bytes(header))
    assert len(text) < 1000
    assert re.search(message, text), text


def test_the_length_is_checked_before_anything_is_read(tmp_path):
    for length, message in (
        (100_000_001, "larger than the format's"),
        (2**63, "larger"),
        (99_999, "in a file"),
    ):
        assert message in refusal(tmp_path, length.to_bytes(8, "little") + b"{}")


def test_a_large_hostile_header_takes_little_memory(tmp_path):
    content = file_bytes(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}")
    tracemalloc.start()
    try:
        assert "brackets in a header" in refusal(tmp_path, content)
        assert tracemalloc.get_traced_memory()[1] < 4 * len(content)
    finally:
        tracemalloc.stop()


SOUND = save({"a.weight": torch.ones(3, 4), "b": torch.arange(6), "c": torch.zeros(0, 2).half()}, {"k": "v"})


def check_named(error, path):
    assert str(path) in str(error)
    assert len(str(error)) < 1000


def check_like_the_library(content, path):
    """Only a named error, and never softer than the library."""
    path.write_bytes(content)
    try:
        with path.open("rb") as file:
            entries, _ = read_header(file, path)
    except RunError as error:
        check_named(error, path)
        return
    try:
        assert library_load(content).keys() == entries.keys()
    except SafetensorError as error:
        pytest.fail(f"the library refuses it: {error}")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_mutated_files_are_refused_or_read_as_the_library_reads_them(tmp_path_factory, data):
    content = bytearray(SOUND)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not content:
            break
    check_like_the_library(bytes(content), tmp_path_factory.getbasetemp() / "mutated.safetensors")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F4", "U8", "F6_E2M3"]) | VALUES,
        "shape": st.lists(st.integers(0, 4), max_size=3) | VALUES,
        "data_offsets": st.lists(st.integers(0, 16), min_size=2, max_size=2) | VALUES,
    }
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["a", "b", "__metadata__"]), ENTRIES | VALUES), st.binary(max_size=16))
def test_random_headers_give_named_errors(tmp_path_factory, header, data):
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(file_bytes(header, data))
    try:
        with path.open("rb") as file:
            read_header(file, path)
    except RunError as error:
        check_named(error, path)
