"""The lanes for other processors: the same bits on every processor that a library can be told to take this one for.

What is simulated beneath a lane: MKL's choice of instructions, the C library's mathematics, NumPy's kernels.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.recipe.tiny_run import write_recipe

OLDER = {
    "AVX2": {
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ",
        "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    },
    "SSE4.2": {
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX512BW,-AVX512DQ,-AVX2,-AVX,-FMA",
        "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL AVX512_SPR",
    },
}
SIMULATED = {"cpu-avx2": ("AVX2",), "cpu-portable": ("AVX2", "SSE4.2")}


def numbers_of(recipe, out, lane, environment):
    """Every step's numbers and states of a run in a process of its own, and the hashes of what it left."""
    command = [sys.executable, "-m", "clearseek", "run", recipe, "--out", str(out)]
    done = subprocess.run(
        [*command, *(["--lane", lane] if lane else [])],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (out / "ledger.jsonl").read_text().splitlines()]
    kept = [record for record in records if record["kind"] in ("step", "stage_finished")]
    return [{key: value for key, value in record.items() if key not in ("line", "prev")} for record in kept]


@pytest.mark.parametrize(
    ("lane", "older"), [(lane, older) for lane, some in SIMULATED.items() for older in some]
)
def test_a_lane_is_the_same_on_an_older_processor(tmp_path, lane, older):
    recipe = write_recipe(tmp_path)
    here = numbers_of(recipe, tmp_path / "here", lane, {})
    assert any("state" in record for record in here)
    assert numbers_of(recipe, tmp_path / "there", lane, OLDER[older]) == here


def test_lanes_are_really_others(tmp_path):
    """Else the comparison above would say nothing."""
    recipe = write_recipe(tmp_path)
    found = [numbers_of(recipe, tmp_path / str(lane), lane, {}) for lane in (None, *SIMULATED)]
    states = [[record["state"] for record in run if "state" in record][-1] for run in found]
    assert len(set(states)) == 3


def test_outside_a_lane_an_older_processor_gives_other_bits(tmp_path):
    """What is simulated reaches the numbers."""
    recipe = write_recipe(tmp_path)
    here = numbers_of(recipe, tmp_path / "here", None, {})
    there = numbers_of(recipe, tmp_path / "there", None, {"ATEN_CPU_CAPABILITY": "avx2"} | OLDER["SSE4.2"])
    assert here != there
