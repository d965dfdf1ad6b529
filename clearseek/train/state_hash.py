"""The hash of a training state: one leaf a tensor, so that two states that differ can be told apart by name."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

Leaves = dict[str, str]  # name of a tensor → SHA-256 (hex) of its name, dtype, shape and bytes


def leaves_of(tensors: Mapping[str, Tensor]) -> Leaves:
    """A leaf for every tensor, in the order of their names."""
    return {name: _leaf(name, tensors[name]) for name in sorted(tensors)}


def root_of(leaves: Leaves) -> str:
    """The hash (hex) of a whole state: SHA-256 over its leaves in the order of their names."""
    return hashlib.sha256("".join(leaves[name] for name in sorted(leaves)).encode()).hexdigest()


def num_bytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of all tensors."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def first_difference(before: Leaves, now: Leaves) -> str | None:
    """The first tensor, by name, that is another or that only one of the two has; None: they are the same."""
    names = sorted(before.keys() | now.keys())
    return next((name for name in names if before.get(name) != now.get(name)), None)


def _leaf(name: str, tensor: Tensor) -> str:
    shape = ",".join(map(str, tensor.shape))
    dtype = str(tensor.dtype).removeprefix("torch.")
    digest = hashlib.sha256(f"{name}\n{dtype}\n{shape}\n".encode())
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
