"""Adapters whose B is not zero, over the tiny models."""

import torch

from clearseek.config.lora import Lora
from clearseek.config.model import ModelConfig
from clearseek.model.lora import Adapter


def key_of(name: str) -> int:
    """A number for a module."""
    return sum(map(ord, name))


def adapter_over(
    config: ModelConfig, targets: list[str], rslora: bool = False, rank: int = 4, std: float = 0.3
) -> Adapter:
    """An adapter that changes what a model says."""
    settings = Lora(rank=rank, alpha=6.0, targets=targets, rslora=rslora)
    adapter = Adapter.fresh(config, settings, key_of, "targets")
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for _, b in adapter.factors.values():
            b.copy_(std * torch.randn(b.shape, generator=generator))
    return adapter
