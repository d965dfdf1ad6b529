"""The hash of a state against one computed by hand, and what it tells apart."""

import hashlib
import json
import struct

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clearseek.model.stored import save_tensors
from clearseek.train.leaves import LeavesFile
from clearseek.train.state_hash import first_difference, leaves_of, root_of

TENSORS = {
    "model.b": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "model.a": torch.tensor(3.5, dtype=torch.bfloat16),
    "optimizer.step": torch.tensor(7.0),
    "empty": torch.empty(0, 4),
}
DTYPES = {"F32": "float32", "BF16": "bfloat16"}


def test_a_leaf_is_the_hash_of_name_dtype_shape_and_bytes(tmp_path):
    """Read from a safetensors file by hand: whoever has a kept state can do so."""
    save_tensors(tmp_path / "state.safetensors", TENSORS)
    raw = (tmp_path / "state.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, content = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    expected = {}
    for name in sorted(name for name in header if name != "__metadata__"):
        entry = header[name]
        shape = ",".join(map(str, entry["shape"]))
        told = f"{name}\n{DTYPES[entry['dtype']]}\n{shape}\n".encode()
        start, stop = entry["data_offsets"]
        expected[name] = hashlib.sha256(told + content[start:stop]).hexdigest()
    leaves = leaves_of(TENSORS)
    assert leaves == expected
    assert root_of(leaves) == hashlib.sha256("".join(expected.values()).encode()).hexdigest()


def test_the_order_of_names_and_the_layout_in_memory_do_not_count():
    turned = {name: TENSORS[name] for name in reversed(TENSORS)}
    turned["model.b"] = TENSORS["model.b"].T.contiguous().T
    assert leaves_of(turned) == leaves_of(TENSORS)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("model.b", TENSORS["model.b"].reshape(3, 2)),
        ("model.b", TENSORS["model.b"].view(torch.int32)),
        ("model.b", torch.nextafter(TENSORS["model.b"], torch.tensor(99.0))),
        ("model.a", -TENSORS["model.a"]),
        ("optimizer.step", torch.tensor(8.0)),
    ],
)
def test_whatever_is_another_is_named(name, other):
    changed = leaves_of(TENSORS | {name: other})
    assert first_difference(leaves_of(TENSORS), changed) == name
    assert root_of(changed) != root_of(leaves_of(TENSORS))


def test_a_tensor_that_only_one_state_has_is_named():
    fewer = {name: tensor for name, tensor in TENSORS.items() if name != "model.a"}
    assert first_difference(leaves_of(TENSORS), leaves_of(fewer)) == "model.a"
    assert first_difference(leaves_of(TENSORS), leaves_of(TENSORS)) is None


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=8), st.integers(0, 9))
def test_leaves_come_back_and_go_back_to_any_step(tmp_path_factory, states, back):
    """Whatever names come and go, killed in the middle of a line or not."""
    path, expected = tmp_path_factory.mktemp("leaves") / "leaves.jsonl", {}
    file = LeavesFile(path)
    for step, (count, opens_anew) in enumerate(states, 1):
        expected[step] = {f"t{n}": f"{step}{n}" for n in range(count + 1)}
        file = LeavesFile(path) if opens_anew else file
        file.append(step, expected[step])
    if states:
        with path.open("ab") as torn:
            torn.write(b'{"step":99,"sha')
    file = LeavesFile(path)
    assert file.read() == expected
    file.rewind(back)
    assert file.read() == {step: leaves for step, leaves in expected.items() if step <= back}
    file.append(50, {"t0": "x"})
    assert file.read()[50] == {"t0": "x"}
