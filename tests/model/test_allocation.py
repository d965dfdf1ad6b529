"""Keeping freed memory: asked of glibc, of nobody else."""

import ctypes
import platform

import pytest

from clearseek.model import allocation

ask = allocation.keep_freed_memory.__wrapped__


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="not glibc")
def test_glibc_takes_it_and_twice_does_no_harm():
    assert ask()
    assert ask()
    assert allocation.keep_freed_memory() is allocation.keep_freed_memory() is True


def test_another_system_is_not_asked(monkeypatch):
    monkeypatch.setattr(allocation.sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: pytest.fail("asked"))
    assert ask() is False


def test_a_c_library_without_the_call_is_told(monkeypatch):
    monkeypatch.setattr(allocation.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: object())
    assert ask() is False


@pytest.mark.parametrize("refused", [allocation._TRIM_THRESHOLD, allocation._MMAP_MAX])
def test_a_refusal_is_told(monkeypatch, refused):
    class Library:
        @staticmethod
        def mallopt(name, _):
            return int(name != refused)

    monkeypatch.setattr(allocation.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Library)
    assert ask() is False
