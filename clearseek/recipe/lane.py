"""Computing in a lane: the device, the dtype and the threads that it asks for, and torch told so."""

from typing import Literal

import torch

from clearseek.config.errors import InputError, RunError
from clearseek.config.recipe import Recipe
from clearseek.ledger.lanes import Lane, enter, find_lane
from clearseek.model.device import DeviceChoice, choose_device


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
