"""What a lane refuses, in one line each; that its bits hold is for tests/slow."""

from pathlib import Path

import pytest
import torch

from clearseek.config.errors import InputError, RunError
from clearseek.config.load import load_recipe
from clearseek.ledger import lanes
from clearseek.model.kernels import library
from clearseek.recipe import lane
from clearseek.recipe.lane import conditions_on, enter_lane, why_other_bits
from tests.recipe.tiny_run import write_recipe


@pytest.fixture
def recipe(tmp_path):
    return load_recipe(Path(write_recipe(tmp_path)))


def test_an_unknown_lane_is_refused_with_those_there_are():
    with pytest.raises(
        InputError, match=r"lane 'avx2' is not known; lanes: cpu-native, cpu-avx2, cpu-portable"
    ):
        lanes.find_lane("avx2")
    assert lanes.find_lane("cuda-sm90").device == "cuda"


def test_a_lane_computes_where_and_in_what_it_says(recipe):
    with pytest.raises(InputError, match="lane cpu-avx2 computes on cpu, not on cuda"):
        enter_lane("cpu-avx2", "cuda", recipe)
    with pytest.raises(
        InputError, match='lane cpu-avx2 computes in float32, not in bfloat16; set dtype = "float32"'
    ):
        enter_lane("cpu-avx2", "auto", recipe.model_copy(update={"dtype": "bfloat16"}))
    with pytest.raises(InputError, match="in lane cpu-portable nothing is compiled for this processor"):
        enter_lane("cpu-portable", "auto", recipe.model_copy(update={"compile": True}))


def test_a_lane_is_not_entered_once_torch_is_loaded(recipe, monkeypatch):
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    with pytest.raises(
        RunError, match=r"ATEN_CPU_CAPABILITY=default .*before torch is loaded.*--lane cpu-portable"
    ):
        enter_lane("cpu-portable", "auto", recipe)


def test_torch_that_computes_otherwise_is_refused(recipe, monkeypatch):
    """The environment came too late, or the processor can't."""
    for name, value in lanes.find_lane("cpu-portable").environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    with pytest.raises(RunError, match="lane cpu-portable: torch computes with AVX512, not with DEFAULT"):
        enter_lane("cpu-portable", "auto", recipe)


def test_a_processor_without_the_instructions_is_refused(monkeypatch):
    monkeypatch.setattr(lanes, "_processor_flags", frozenset)
    with pytest.raises(
        RunError, match="this processor has no avx2, so the lane cpu-avx2 can't be offered here"
    ):
        lanes.enter(lanes.find_lane("cpu-avx2"))


def test_it_is_said_in_one_line_where_a_run_s_lane_is_not_to_be_had(monkeypatch):
    here = lanes.conditions()
    assert lanes.why_not_here("cpu-native", here) is None
    assert "another build of torch" in lanes.why_not_here("cpu-avx2", here | {"torch_sha256": "0"})
    other = here | {"flags": ["avx"], "processor": "An Old One"}
    reason = lanes.why_not_here("cpu-native", other)
    assert reason.startswith("the run was made on An Old One, and this is ")
    assert "\n" not in reason
    assert (
        lanes.why_not_here("cpu-avx2", other) is None
    )  # which instructions there are beyond AVX2 is all the same
    assert "before there were lanes" in lanes.why_not_here(None, {})


CPU = torch.device("cpu")


def session_with(form, monkeypatch, **changed):
    """A session that these kernels computed, here and with whatever was changed."""
    monkeypatch.setattr(library, "form", lambda: form)
    return {"device": "cpu", "lane": "cpu-native", "machine": conditions_on(CPU) | changed}


def test_what_kernels_computed_is_recorded(monkeypatch):
    monkeypatch.setattr(library, "form", lambda: "amx")
    found = conditions_on(CPU)
    assert (found["kernels"], found["kernels_sha256"]) == ("amx", library.sources_sha256())
    monkeypatch.setattr(library, "form", lambda: "none")
    assert conditions_on(CPU)["kernels"] == "none"
    assert "kernels_sha256" not in conditions_on(CPU)


def test_other_kernels_than_the_run_s_are_said_in_one_line(monkeypatch):
    with_kernels, without = (session_with(form, monkeypatch) for form in ("amx", "none"))
    monkeypatch.setattr(library, "why_not", lambda: "there is no C++ compiler (g++ or clang++)")
    assert why_other_bits(without) is None
    assert why_other_bits(with_kernels) == (
        "the run was made with fused kernels on AMX, and this machine computes without fused kernels (there is no "
        "C++ compiler (g++ or clang++))"
    )
    monkeypatch.setattr(library, "form", lambda: "amx")
    monkeypatch.setattr(library, "why_not", lambda: None)
    assert why_other_bits(with_kernels) is None
    assert why_other_bits(without).endswith("computes with fused kernels on AMX; set CLEARSEEK_KERNELS=0")
    other = session_with("amx", monkeypatch, kernels_sha256="0")
    assert "other sources of the fused kernels than this clearseek's" in why_other_bits(other)


def test_a_run_of_before_kernels_were_recorded_is_taken_to_be_the_same(monkeypatch):
    for form in ("amx", "none"):
        monkeypatch.setattr(library, "form", lambda form=form: form)
        assert why_other_bits({"device": "cpu", "lane": "cpu-native", "machine": lanes.conditions()}) is None
        assert why_other_bits({"device": "cpu", "lane": "cpu-native"}) is None


def test_the_form_of_the_kernels_is_told(monkeypatch):
    monkeypatch.setattr(library, "why_not", lambda: "CLEARSEEK_KERNELS=0")
    assert library.form() == "none"
    monkeypatch.setattr(library, "why_not", lambda: None)
    for tiles, form in ((True, "amx"), (False, "avx512")):
        monkeypatch.setattr(library, "has_tiles", lambda tiles=tiles: tiles)
        assert library.form() == form


def test_the_gpu_of_a_run_is_recorded_and_another_is_said_in_one_line(monkeypatch):
    cuda = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(lane, "nvidia_driver", lambda: "570.86.15")
    here = conditions_on(cuda)
    told = {"gpu": "NVIDIA H100", "driver": "570.86.15", "cuda": "12.8", "cudnn": 91002}
    assert {name: here.get(name) for name in told} == told
    assert "kernels" not in here
    assert here.keys() > lanes.conditions().keys()

    def reason(**changed):
        return why_other_bits({"device": "cuda:0", "lane": "cuda-sm90", "machine": here | changed})

    assert reason() is None
    assert reason(gpu="NVIDIA A100") == "the run was made on NVIDIA A100, and this machine has NVIDIA H100"
    assert reason(driver="1.2") == "the run was made with driver 1.2, and this machine has 570.86.15"
    assert reason(cuda="12.4") == "the run was made with CUDA 12.4, and this machine has 12.8"
    assert reason(cudnn=90100) == "the run was made with cuDNN 90100, and this machine has 91002"
    older = {"device": "cuda", "lane": "cuda-sm90", "machine": lanes.conditions()}
    assert why_other_bits(older) is None
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert reason(gpu="NVIDIA A100") is None  # whoever asks for the device is told that there is none
