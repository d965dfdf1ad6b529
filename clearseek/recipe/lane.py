"""Computing in a lane: the device, the dtype and the threads that it asks for, and torch told so."""

from typing import Any, Literal

import torch

from clearseek.config.errors import InputError, RunError
from clearseek.config.recipe import Recipe
from clearseek.ledger.lanes import Lane, conditions, enter, find_lane
from clearseek.ledger.machine import nvidia_driver
from clearseek.model.device import DeviceChoice, choose_device
from clearseek.model.kernels import library

_KERNELS = {
    "none": "without fused kernels",
    "avx512": "with fused kernels",
    "amx": "with fused kernels on AMX",
}
_GPU = {"gpu": "on", "driver": "with driver", "cuda": "with CUDA", "cudnn": "with cuDNN"}
_SETTINGS = {"none": "0", "avx512": "avx512"}  # of CLEARSEEK_KERNELS, where a machine could do more


def enter_lane(name: str | None, device: str, recipe: Recipe) -> DeviceChoice:
    """The device and dtype to compute with; in a named lane as it asks, with its environment and threads.

    Raises InputError where the recipe or `device` asks for something else, RunError where the lane can't be offered.
    """
    if name is None:
        return choose_device(device, recipe.dtype)
    lane = find_lane(name)
    if device not in ("auto", lane.device):
        raise InputError(f"lane {name} computes on {lane.device}, not on {device}; leave one of the two out")
    if lane.dtype is not None and recipe.dtype not in ("auto", lane.dtype):
        raise InputError(
            f'lane {name} computes in {lane.dtype}, not in {recipe.dtype}; set dtype = "{lane.dtype}"'
        )
    if not lane.is_native and recipe.compile is True:
        raise InputError(
            f"in lane {name} nothing is compiled for this processor; leave compile out of the recipe"
        )
    enter(lane)
    choice = choose_device(lane.device, lane.dtype or recipe.dtype)
    _check(lane)
    if lane.threads is not None:
        torch.set_num_threads(lane.threads)
    if lane.device == "cuda":
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    return choice


def capability() -> str:
    """The instructions that torch computes with on the CPU, in its words: what the processor has, or was told."""
    return torch.backends.cpu.get_cpu_capability()


def conditions_on(device: torch.device) -> dict[str, Any]:
    """What bits on a device depend on besides the lane: as `conditions`, and what torch and our kernels use there."""
    found = conditions() | {"capability": capability()}
    if device.type == "cuda":
        return found | _gpu(device)
    if device.type == "cpu":
        found["kernels"] = library.form()
        if found["kernels"] != "none":
            found["kernels_sha256"] = library.sources_sha256()
    return found


def _gpu(device: torch.device) -> dict[str, Any]:
    return {
        "gpu": torch.cuda.get_device_name(device),
        "driver": nvidia_driver(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
    }


def why_other_bits(session: dict[str, Any]) -> str | None:
    """In one line, what computes otherwise here than in a session of a run, once its lane is entered; None: nothing.

    What an older clearseek did not record is taken to be the same.
    """
    kind, recorded = torch.device(str(session["device"])).type, session.get("machine") or {}
    found = None
    if kind == "cpu":
        found = _other_kernels(recorded)
    elif kind == "cuda" and torch.cuda.is_available():  # else the device is refused
        found = _other_gpu(recorded)
    return None if found is None else f"the run was made {found}"


def _other_kernels(recorded: dict[str, Any]) -> str | None:
    form, digest = library.form(), library.sources_sha256()
    if (told := str(recorded.get("kernels", form))) != form:
        reason = library.why_not()
        because = "" if reason is None else f" ({reason})"
        remedy = f"; set {library.OFF}={_SETTINGS[told]}" if told in _SETTINGS and reason is None else ""
        return f"{_KERNELS.get(told, told)}, and this machine computes {_KERNELS[form]}{because}{remedy}"
    if form != "none" and recorded.get("kernels_sha256", digest) != digest:
        return "with other sources of the fused kernels than this clearseek's"
    return None


def _other_gpu(recorded: dict[str, Any]) -> str | None:
    here = _gpu(torch.device("cuda"))
    for key, what in _GPU.items():
        if recorded.get(key, here[key]) != here[key]:
            return f"{what} {recorded[key]}, and this machine has {here[key]}"
    return None


def _check(lane: Lane) -> None:
    """RunError where torch does not compute as the lane says."""
    found = capability()
    if lane.capability is not None and found != lane.capability:
        raise RunError(
            f"lane {lane.name}: torch computes with {found}, not with {lane.capability}, on this machine"
        )
    if lane.device == "cuda":
        here = "cuda-sm{}{}".format(*torch.cuda.get_device_capability())
        if here != lane.name:
            raise RunError(f"this GPU's lane is {here}, so the lane {lane.name} can't be offered here")


def compile_in(lane: str | None, recipe: Recipe) -> bool | Literal["auto"]:
    """Whether to compile: as the recipe says, but nothing in a lane for other processors than this one."""
    return recipe.compile if lane is None or find_lane(lane).is_native else False
