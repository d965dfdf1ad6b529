"""The header of a GGUF file: read as written, and nothing that it claims believed before it is checked."""

import contextlib
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.model.gguf.header import is_gguf, read_header

UINT32, FLOAT32, BOOL, STRING, ARRAY, UINT64 = 4, 6, 7, 8, 9, 10
F32, Q8_0, UNKNOWN = 0, 8, 77


def text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, shape: tuple[int, ...], kind: int = F32, offset: int = 0) -> bytes:
    dimensions = b"".join(struct.pack("<Q", side) for side in reversed(shape))
    return text(name) + struct.pack("<I", len(shape)) + dimensions + struct.pack("<IQ", kind, offset)


def gguf(keys: list[bytes], tensors: list[bytes], data: int = 128, version: int = 3, **claims: int) -> bytes:
    num_tensors, num_keys = claims.get("num_tensors", len(tensors)), claims.get("num_keys", len(keys))
    head = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_keys) + b"".join(keys + tensors)
    return head + bytes(-len(head) % 32) + bytes(range(data))


KEYS = [
    key("general.architecture", STRING, text("llama")),
    key("llama.block_count", UINT32, struct.pack("<I", 2)),
    key("eps", FLOAT32, struct.pack("<f", 1e-6)),
    key("flag", BOOL, b"\1"),
    key("large", UINT64, struct.pack("<Q", 2**40)),
    key("names", ARRAY, struct.pack("<IQ", STRING, 2) + text("a") + text("나")),
    key("numbers", ARRAY, struct.pack("<IQ", UINT32, 3) + struct.pack("<III", 1, 2, 3)),
]
TENSORS = [tensor("a.weight", (2, 3)), tensor("b.weight", (2, 32), Q8_0, 32)]
VALID = gguf(KEYS, TENSORS)


@pytest.fixture
def write(tmp_path):
    def put(content: bytes):
        path = tmp_path / "model.gguf"
        path.write_bytes(content)
        return path

    return put


def test_metadata_comes_as_it_was_meant(write):
    metadata = read_header(write(VALID)).metadata
    assert metadata == {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "eps": 1e-6,
        "flag": True,
        "large": 2**40,
        "names": ["a", "나"],
        "numbers": [1, 2, 3],
    }


def test_tensors_lie_where_the_header_says(write):
    file = read_header(write(VALID))
    assert {name: (t.shape, t.type_name, t.num_bytes) for name, t in file.tensors.items()} == {
        "a.weight": ((2, 3), "F32", 24),
        "b.weight": ((2, 32), "Q8_0", 68),
    }
    assert file.bytes_of(file.tensors["a.weight"]).tolist() == list(range(24))
    assert file.bytes_of(file.tensors["b.weight"]).tolist() == list(range(32, 100))
    assert file.architecture == "llama"


LIES = {
    "another file": (b"PK\3\4" + bytes(60), "not a GGUF file"),
    "nothing": (b"", "can't be read"),
    "another version": (gguf(KEYS, TENSORS, version=9), "is GGUF version 9"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "is GGUF version 50331648; known ones: 2 and 3"),
    "too many keys": (gguf(KEYS, TENSORS, num_keys=2**60), "claims 1152921504606846976 keys"),
    "too many tensors": (gguf(KEYS, TENSORS, num_tensors=2**62), "claims 4611686018427387904 tensors"),
    "a string without end": (gguf([struct.pack("<Q", 2**50)], []), "more than the file can hold"),
    "an array without end": (
        gguf([key("x", ARRAY, struct.pack("<IQ", UINT32, 2**40))], []),
        "claims 1099511627776 numbers",
    ),
    "arrays in arrays": (gguf([key("x", ARRAY, struct.pack("<IQ", ARRAY, 1))], []), "only strings and numbers"),
    "an unknown kind of value": (gguf([key("x", 99, b"")], []), "of type 99"),
    "a key twice": (gguf([KEYS[1], KEYS[1]], []), "llama.block_count is there twice"),
    "a tensor twice": (gguf([], [TENSORS[0], TENSORS[0]]), "a.weight is there twice"),
    "not UTF-8": (gguf([struct.pack("<Q", 2) + b"\xff\xfe"], []), "not UTF-8"),
    "too many dimensions": (gguf([], [tensor("a", (1,) * 9)]), "9 dimensions"),
    "an unknown type": (gguf([], [tensor("a", (2, 3), UNKNOWN)]), "stored in type 77"),
    "rows that are no blocks": (gguf([], [tensor("a", (2, 33), Q8_0)]), "not whole blocks of Q8_0"),
    "a tensor beyond the end": (gguf([], [tensor("a", (2, 3), offset=2**50)]), "does not lie within the file"),
    "a huge tensor": (gguf([], [tensor("a", (2**40, 2**40))]), "does not lie within the file"),
    "an empty tensor": (gguf([], [tensor("a", (0, 4))]), "does not lie within the file"),
    "tensors over each other": (gguf([], [tensor("a", (2, 3)), tensor("b", (2, 3), offset=8)]), "lies over another"),
    "an alignment of three": (
        gguf([key("general.alignment", UINT32, struct.pack("<I", 3))], []),
        "has to be a power of two",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_named(write, name):
    content, message = LIES[name]
    path = write(content)
    with pytest.raises(InputError) as error:
        read_header(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_damage_is_a_named_error_or_harmless(tmp_path_factory, data):
    """A byte changed or the file cut anywhere: read, or an InputError; never another error, never much memory."""
    content = bytearray(VALID)
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(4, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(content)))
    path = tmp_path_factory.getbasetemp() / "damaged.gguf"
    path.write_bytes(content[:cut])
    with contextlib.suppress(InputError):
        read_header(path)


@pytest.mark.parametrize(
    ("name", "content", "is_one"),
    [("a.gguf", b"", True), ("a.bin", b"GGUF\3", True), ("a.bin", b"GG", False), ("a", b"text", False)],
)
def test_a_gguf_file_is_known_by_name_or_content(tmp_path, name, content, is_one):
    (tmp_path / name).write_bytes(content)
    assert is_gguf(tmp_path / name) == is_one
    assert not is_gguf(tmp_path)
