"""The GPU's kernels wait to be asked for."""

from types import SimpleNamespace

import torch

from clearseek.engine.formats import Format
from clearseek.engine.gpu.support import SWITCH
from clearseek.engine.runners import why_plain


def test_kernels_that_no_gpu_has_measured_have_to_be_asked_for(monkeypatch):
    on_gpu = SimpleNamespace(norm=SimpleNamespace(weight=SimpleNamespace(device=torch.device("cuda"))))
    monkeypatch.delenv(SWITCH)
    assert "CLEARSEEK_GPU_KERNELS=1 takes them" in str(why_plain(on_gpu, Format("bfloat16")))
