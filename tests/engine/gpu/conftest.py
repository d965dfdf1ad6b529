"""Without a GPU the kernels run in Triton's interpreter, which has to be asked for before Triton is imported."""

import os
import sys

import pytest
import torch

if not torch.cuda.is_available() and "triton" not in sys.modules:
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearseek.engine.gpu.support import SWITCH  # brings Triton along, where there is one

    monkeypatch.setenv(SWITCH, "1")
