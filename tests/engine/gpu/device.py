"""The device that kernels are tested on: a GPU, or the CPU by Triton's interpreter; tests skip where neither can be."""

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed; make test-gpu brings it")
IS_CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if IS_CUDA else "cpu")
if not IS_CUDA and not triton.knobs.runtime.interpret:
    pytest.skip("triton was imported without its interpreter; make test-gpu", allow_module_level=True)


def normal(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Random numbers on the device, the same on each."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, dtype)
