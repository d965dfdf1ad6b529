"""Counters of energy: those of a made-up machine, and of a library in NVML's place."""

import shutil
import subprocess
from pathlib import Path

import pytest

from clearseek.ledger import energy
from clearseek.ledger.energy import EnergyMeter
from clearseek.ledger.machine import nvidia_driver
from clearseek.ledger.timings import Timings, read_timings

LARGEST = 262_143_328_850


def zone(root: Path, number: str, name: str, microjoules: int) -> Path:
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{LARGEST}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder


def test_packages_and_their_memory_count_and_the_whole_platform_does_not(tmp_path: Path) -> None:
    package, memory = zone(tmp_path, "0", "package-0", 5_000_000), zone(tmp_path, "0:1", "dram", 100)
    core, platform = zone(tmp_path, "0:0", "core", 7), zone(tmp_path, "1", "psys", 9)
    meter = EnergyMeter(rapl=tmp_path)
    for folder, more in ((package, 2_500_000), (memory, 500_000), (core, 9_000_000), (platform, 9_000_000)):
        before = int((folder / "energy_uj").read_text())
        (folder / "energy_uj").write_text(str(before + more))
    assert meter.read() == {"cpu_joules": pytest.approx(3.0)}
    assert meter.read() == {"cpu_joules": pytest.approx(0.0)}


def test_a_counter_that_begins_anew_goes_on(tmp_path: Path) -> None:
    package = zone(tmp_path, "0", "package-0", LARGEST - 1_000_000)
    meter = EnergyMeter(rapl=tmp_path)
    (package / "energy_uj").write_text("1999999")
    assert meter.read() == {"cpu_joules": pytest.approx(3.0)}


def test_without_a_counter_that_may_be_read_there_is_no_figure(tmp_path: Path) -> None:
    assert EnergyMeter(rapl=tmp_path / "none").read() == {}
    package = zone(tmp_path, "0", "package-0", 1)
    (package / "energy_uj").unlink()  # as it is for anyone but root: there, and not to be read
    assert EnergyMeter(rapl=tmp_path).read() == {}


def test_every_line_of_the_clock_has_the_energy_since_the_line_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = zone(tmp_path, "0", "package-0", 0)
    monkeypatch.setattr(EnergyMeter.__init__, "__defaults__", (None, tmp_path))
    with Timings(tmp_path / "t") as timings:
        timings.start_stage("sft")
        (package / "energy_uj").write_text("2000000")
        timings.append("step", "sft", 1)
        timings.finish_stage("sft")
    assert [line["cpu_joules"] for line in read_timings(tmp_path / "t")] == [0.0, 0.0, 2.0, 0.0]


SOURCE = """
#include <string.h>
static unsigned long long energy = 5000;
int nvmlInit_v2(void) { return 0; }
int nvmlSystemGetDriverVersion(char *version, unsigned size) { return !strncpy(version, "570.86.15", size); }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(index + 1L); return index > 3; }
int nvmlDeviceGetHandleByUUID(const char *name, void **device) { *device = (void *)9; return strcmp(name, "GPU-two"); }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj) {
    energy += (unsigned long long)(long)device * 1000; *mj = energy; return 0;
}
"""


@pytest.fixture(scope="module")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler, to make a library in NVML's place")
    folder = tmp_path_factory.mktemp("nvml")
    (folder / "nvml.c").write_text(SOURCE)
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", "nvml.so", "nvml.c"], cwd=folder, check=True, timeout=60
    )
    return str(folder / "nvml.so")


@pytest.mark.parametrize(
    ("visible", "gpu", "joules"),
    [("", 0, 1), ("", 2, 3), ("3,1", 1, 2), ("GPU-two", 0, 9), ("GPU-other", 0, None)],
)
def test_the_accelerator_that_cuda_means_is_read(
    nvml: str, visible: str, gpu: int, joules: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    counter = energy._nvml(gpu, nvml)
    if joules is None:
        assert counter is None
    else:
        assert counter is not None
        assert -counter() + counter() == joules


def test_without_the_library_there_is_no_figure() -> None:
    assert energy._nvml(0, "libnothing-of-that-name.so.1") is None


def test_the_driver_s_version_is_read_where_the_library_tells_it(nvml: str) -> None:
    assert nvidia_driver(nvml) == "570.86.15"
    assert nvidia_driver("libnothing-of-that-name.so.1") is None
