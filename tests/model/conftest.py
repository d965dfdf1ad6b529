"""Random numbers for the tests of the model."""

import pytest
import torch


@pytest.fixture
def random():
    """Normal numbers, the same in every run; `bf16` ones are leaves that hold what bf16 can."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape, dtype=torch.float32):
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    return draw
