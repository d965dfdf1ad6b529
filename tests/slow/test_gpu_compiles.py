"""Every kernel for GPUs compiles for H100 and H200, and takes no more shared memory than a multiprocessor has."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed; make test-gpu brings it")

SHARED_BYTES = (
    227 << 10
)  # of a block of threads, compute capability 9.0 (CUDA C++ Programming Guide, table 27)


@pytest.mark.timeout(600)
def test_kernels_compile_and_fit():
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-m", "tests.slow.gpu_compiled", "90"],
        cwd=Path(__file__).parents[2], env=environment, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-2000:]
    made = [line.split() for line in result.stdout.splitlines()]
    names = {"_norm", "_rotate", "_swiglu", "_weigh", "_product", "_sum", "_round_fp8", "_stretch", "_merge"}
    assert names == {name for name, _ in made}
    assert max(int(shared) for _, shared in made) <= SHARED_BYTES
