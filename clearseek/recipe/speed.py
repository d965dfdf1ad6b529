"""How fast a plan's machine computes: measured here and now, or tabulated for a named accelerator."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.config.recipe import Recipe, SupervisedStage, TrainStage
from clearseek.ledger.machine import describe_machine
from clearseek.model.compiling import COMPILE_SECONDS, pays
from clearseek.model.device import choose_device
from clearseek.model.kernels.library import fits
from clearseek.recipe.accelerators import SAMPLING_SOURCE, SAMPLING_UTILISATION, find_accelerator
from clearseek.recipe.memory import ENGINE_SLOTS, activation_bytes, machine_memory
from clearseek.recipe.workload import Work
from clearseek.train.context import EAGER_FLOPS_PER_SECOND


@dataclass(frozen=True)
class Overheads:
    """What small models cost beyond their matrix products, as a share of what those would take.

    Each byte that a training step keeps is written, read and read again; generating is so many small products.
    """

    operations_per_activation_byte: float
    sampling_share: float  # of its products' rate that generating sustains


# Fitted to models of 0.3M to 4M parameters of two kinds of architecture: 190 to 275 and 0.09 to 0.14.
PLAIN = Overheads(200.0, 0.12)
FUSED = Overheads(80.0, 0.25)  # with the fused kernels; fitted to one run of r1-mini's teacher and student
# A training step with linear layers in int8 beside one without: 1.1 to 1.4 times faster from 1M to 10M parameters
INT8_SPEEDUP = 1.2
_SECONDS_A_SHAPE = 0.15
_DTYPES = {2: torch.bfloat16, 4: torch.float32}
_MOST_ROWS = 4096  # of a product that is timed; more rows run no faster


@dataclass
class Machine:
    """What a plan is made for: `count` devices and what is known of each."""

    name: str
    count: int
    memory_bytes: float | None
    compute_bytes: int
    price_per_hour: float | None
    sources: dict[str, str]
    is_here: bool
    _training: float = 0.0
    _sampling: float = 0.0
    _device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    _rates: dict[tuple[int, int, int], float] = field(default_factory=dict)

    @property
    def overheads(self) -> Overheads:
        """Those of the kernels that a run here would use."""
        return FUSED if fits(_DTYPES[self.compute_bytes], torch.empty(0, device=self._device)) else PLAIN

    def seconds(self, recipe: Recipe, work: Work) -> float:
        """Wall time of a stage's operations on all devices."""
        if work.config is None:
            return 0.0
        if self.is_here:
            return self._seconds_here(recipe, work, work.config)
        seconds = work.training_flops / self._training + work.sampling_flops / self._sampling
        return seconds / self.count

    def _seconds_here(self, recipe: Recipe, work: Work, config: ModelConfig) -> float:
        """The same by the speed of products in the stage's own shapes."""
        stage, beyond = recipe.stages[work.name], self.overheads
        sampling = self._rate(ENGINE_SLOTS, config.hidden_size, config.intermediate_size)
        seconds = work.sampling_flops / (beyond.sampling_share * sampling)
        if not isinstance(stage, TrainStage):
            return seconds
        rows = stage.micro_batch_rows * stage.sequence_length
        kept = activation_bytes(config, stage, self.compute_bytes) / rows * work.trained_tokens
        training = self._rate(min(rows, _MOST_ROWS), config.hidden_size, config.intermediate_size)
        learning = (work.training_flops + beyond.operations_per_activation_byte * kept) / training
        is_int8 = beyond is FUSED and isinstance(stage, SupervisedStage) and stage.linear_dtype == "int8"
        seconds += learning / (INT8_SPEEDUP if is_int8 else 1.0)
        eager = work.training_flops / EAGER_FLOPS_PER_SECOND
        return seconds + (COMPILE_SECONDS if beyond is PLAIN and pays(eager) else 0.0)

    def _rate(self, rows: int, inner: int, outer: int) -> float:
        shape = (rows, inner, outer)
        if shape not in self._rates:
            self._rates[shape] = measure_products(shape, self._device, _DTYPES[self.compute_bytes])
        return self._rates[shape]


def this_machine(recipe: Recipe, price_per_hour: float | None) -> Machine:
    """The device that a run would choose here; its speed is measured when a stage asks for it."""
    choice = choose_device("auto", recipe.dtype)
    name = describe_machine()["processor"] or "this machine"
    if choice.device.type == "cuda":
        name = torch.cuda.get_device_name(choice.device)
    sources = {"memory": "this system", "device": choice.reason}
    memory = machine_memory(choice.device)
    bytes_each = choice.dtype.itemsize
    machine = Machine(name, 1, memory, bytes_each, price_per_hour, sources, True, _device=choice.device)
    machine.sources["speed"] = (
        "matrix products measured now in the shapes of this recipe; a training step pays for "
        f"{machine.overheads.operations_per_activation_byte:g} operations more for each byte it keeps, sampling "
        f"sustains {machine.overheads.sampling_share:.0%} of the rate"
    )
    return machine


def named_machine(name: str, count: int, price_per_hour: float | None) -> Machine:
    """`count` accelerators of the table, at its price unless told another."""
    chosen = find_accelerator(name)
    peak = chosen.bf16_tflops * 1e12
    share, share_source = chosen.training_utilisation
    price = chosen.price_per_hour if price_per_hour is None else price_per_hour
    sources = {
        "peak": f"{chosen.bf16_tflops:g} TFLOP/s dense bf16: {chosen.specification}",
        "training": f"{share:.2%} of it: {share_source}",
        "sampling": f"{SAMPLING_UTILISATION:.2%} of it: {SAMPLING_SOURCE}",
        "price": chosen.price_source if price_per_hour is None else "as asked",
    }
    return Machine(
        chosen.title,
        count,
        chosen.memory_gb * 1e9,
        2,
        price,
        sources,
        False,
        _training=share * peak,
        _sampling=SAMPLING_UTILISATION * peak,
    )


def find_machine(
    recipe: Recipe, accelerator: str | None, count: int, price_per_hour: float | None
) -> Machine:
    """The machine that a plan is asked for; InputError for an unknown one, or for several of this one."""
    if accelerator is not None:
        return named_machine(accelerator, count, price_per_hour)
    if count > 1:
        raise InputError(f"--count {count} needs --accelerator: this machine is one")
    return this_machine(recipe, price_per_hour)


def measure_products(shape: Sequence[int], device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of [rows, inner] @ [outer, inner].T, the best of a few short runs.

    Of a processor one thread is timed, by the time that it was given: what else runs does not slow the plan.
    """
    rows, inner, outer = shape
    left = torch.ones(rows, inner, device=device, dtype=dtype)
    right = torch.ones(outer, inner, device=device, dtype=dtype)
    threads = torch.get_num_threads()
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    operations, best, begun = 16.0 * rows * inner * outer, 0.0, time.perf_counter()
    try:
        torch.set_num_threads(1 if device.type == "cpu" else threads)
        while time.perf_counter() - begun < _SECONDS_A_SHAPE or not best:
            started = clock()
            for _ in range(8):
                F.linear(left, right)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = max(best, operations / max(clock() - started, 1e-9))
    finally:
        torch.set_num_threads(threads)
    return best * (threads if device.type == "cpu" else 1)
