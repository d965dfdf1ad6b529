"""The device and dtype are what was asked for or the best there is, and always come with the reason."""

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.model import device
from clearseek.model.device import can_compile, choose_device


def pretend(monkeypatch, cuda=0, cuda_bf16=True, mps=False, cpu=()):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: cuda_bf16)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(cpu, True))


@pytest.mark.parametrize(
    ("machine", "kind", "dtype", "reason"),
    [
        (
            {},
            "cpu",
            torch.float32,
            "no accelerator found; float32 because this processor has no fast bfloat16",
        ),
        ({"cpu": ["avx512_bf16"]}, "cpu", torch.bfloat16, "bfloat16 because this processor has avx512_bf16"),
        ({"cpu": ["amx_bf16", "avx512_bf16"]}, "cpu", torch.bfloat16, "processor has amx_bf16"),
        ({"mps": True}, "mps", torch.float32, "mps found; float32"),
        (
            {"cuda": 1, "mps": True},
            "cuda",
            torch.bfloat16,
            "cuda found; bfloat16 because this GPU computes in it",
        ),
        ({"cuda": 1, "cuda_bf16": False}, "cuda", torch.float32, "float32 because this GPU has no bfloat16"),
    ],
)
def test_auto_takes_the_best_there_is(monkeypatch, machine, kind, dtype, reason):
    pretend(monkeypatch, **machine)
    choice = choose_device()
    assert (choice.device.type, choice.dtype) == (kind, dtype)
    assert reason in choice.reason


def test_what_is_asked_for_is_taken(monkeypatch):
    pretend(monkeypatch, cuda=2, cpu=["avx512_bf16"])
    choice = choose_device("cpu", "float32")
    assert (choice.device.type, choice.dtype) == ("cpu", torch.float32)
    assert choice.reason == "cpu as asked; float32 as asked"
    assert choose_device("cuda:1").device == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_an_absent_device_is_refused(monkeypatch, name):
    pretend(monkeypatch)
    with pytest.raises(InputError, match=rf"device {name} is not on this machine; use --device auto"):
        choose_device(name)


def test_a_gpu_number_beyond_the_last_is_refused(monkeypatch):
    pretend(monkeypatch, cuda=2)
    with pytest.raises(InputError, match="device cuda:2 is not on this machine"):
        choose_device("cuda:2")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:1", "", "auto:0", "meta"])
def test_an_unknown_device_lists_the_known_ones(name):
    with pytest.raises(InputError, match="is not known; give auto, cpu, cuda, cuda:N or mps"):
        choose_device(name)


def test_an_unknown_dtype_lists_the_known_ones():
    with pytest.raises(
        InputError, match=r"dtype 'float16' is not supported; known ones: auto, float32, bfloat16"
    ):
        choose_device(dtype="float16")


def test_compiling_needs_a_compiler_and_headers(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert can_compile() == "no C++ compiler (no-such-compiler) on this machine"
    monkeypatch.setattr(device.shutil, "which", lambda name: name)
    monkeypatch.setattr(device.sysconfig, "get_path", lambda name: str(tmp_path))
    assert can_compile() == "Python's headers (Python.h) are not installed"
    (tmp_path / "Python.h").touch()
    assert can_compile() is None
