"""Memory in huge pages: tensors that don't overlap, of any shape, alive as long as they are."""

import mmap

import torch

from clearseek.model import huge_pages
from clearseek.model.huge_pages import HugePages


def test_tensors_do_not_share_a_byte_and_outlive_their_maker():
    memory = HugePages()
    shapes = [
        ((3, 5), torch.bfloat16),
        ((0,), torch.float32),
        ((700_000,), torch.float32),
        ((64,), torch.uint8),
    ] * 3
    tensors = [memory.empty(*shape, dtype=dtype) for shape, dtype in shapes]
    for number, tensor in enumerate(tensors):
        tensor.fill_(number)
    del memory
    for number, (tensor, (shape, dtype)) in enumerate(zip(tensors, shapes, strict=True)):
        assert (tensor.shape, tensor.dtype) == (shape, dtype)
        assert bool((tensor == number).all())
        assert tensor.data_ptr() % 64 == 0


def test_where_there_are_none_memory_is_plain(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert huge_pages._pages(4096).shape == (4096,)
