"""Data-parallel training on any number of processes: who does what, what is summed, what is gathered (FSDP2).

Every rank derives the same global batch and takes its share of the rows. Losses are divided by counts of
the whole batch, so that a gradient is the plain SUM of what the ranks computed. A process started alone is
a world of one, which exchanges nothing. Left out on purpose: expert, tensor and pipeline parallelism, and parting a
frozen model: under an adapter every rank holds all of it.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from clearseek.config.errors import InputError, RunError
from clearseek.engine.request import Sampling
from clearseek.engine.rollout import Group, roll_out
from clearseek.engine.sampler import Sampler
from clearseek.model.decoder import Decoder
from clearseek.tasks.problem import Problem
from clearseek.tasks.worker import VerifierPool
from clearseek.text.tokenizer import Tokenizer

TIMEOUT_SECONDS = 1800.0  # the longest that a rank waits for the others, whatever for
# Gloo's threads need Python to let go of what was exchanged last. One that asks for it while Python ends is ended too,
# in a destructor, and so is the process, its work done (torch 2.13: "terminate called without an active exception")
_LETTING_GO_SECONDS = 0.1
T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """Which of how many processes this one is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of `count` things are this rank's: every `size`-th."""
        return range(self.rank, count, self.size)

    def largest_share(self, count: int) -> int:
        """How many of `count` things the rank with the most of them has."""
        return -(-count // self.size)


def world() -> World:
    """The processes that train together now."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


@contextmanager
def joined_world(device: torch.device, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[World]:
    """Join the processes that torchrun started, if it did, and leave them in the end.

    Raises InputError when only part of torchrun's environment is there, RunError when the others do not come.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 or world().size > 1:
        yield world()
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise InputError(f"WORLD_SIZE is {size} but {missing[0]} is not set; start with torchrun")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=timeout_seconds))
    except dist.DistError as error:
        raise RunError(f"rank {os.environ['RANK']} of {size} did not meet the others: {error}") from error
    try:
        yield world()
    finally:
        dist.destroy_process_group()
        _mesh.cache_clear()
        time.sleep(_LETTING_GO_SECONDS)


def own_device(device: torch.device) -> torch.device:
    """The device of this process: under torchrun every process of a machine has a GPU of its own."""
    size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.type != "cuda" or device.index is not None or size == 1:
        return device
    if size > torch.cuda.device_count():
        raise InputError(f"{size} processes but {torch.cuda.device_count()} GPUs; lower --nproc-per-node")
    return torch.device("cuda", int(os.environ["LOCAL_RANK"]))


@contextmanager
def waiting_for(what: str) -> Iterator[None]:
    """Name what was waited for when an exchange with the other ranks fails or takes too long."""
    try:
        yield
    except RunError:
        raise
    except RuntimeError as error:  # what torch.distributed and its back ends raise
        here = world()
        if here.size == 1 or not _is_lost(error):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(
            f"rank {here.rank} of {here.size} gave up waiting for {what}: {reason}; "
            "see what the other ranks said, then run the same command again"
        ) from error


def _is_lost(error: RuntimeError) -> bool:
    words = ("timed out", "timeout", "connection", "peer", "broken pipe", "socket")
    return isinstance(error, dist.DistError) or any(word in str(error).lower() for word in words)


def on_first(what: str, do: Callable[[], T]) -> T:
    """What `do` returns on the first rank, on every rank; what it raises there is raised everywhere."""
    here = world()
    if here.size == 1:
        return do()
    outcome: list[Any] = [None, None]
    if here.is_first:
        try:
            outcome[0] = do()
        except Exception as error:
            known = isinstance(error, InputError | RunError)
            _broadcast(what, [None, error if known else RunError(f"rank 0 failed: {what}: {error}")])
            raise
    _broadcast(what, outcome)
    if outcome[1] is not None:
        outcome[1].is_told = True  # rank 0 tells it
        raise outcome[1]
    return outcome[0]


def _broadcast(what: str, outcome: list[Any]) -> None:
    with waiting_for(f"rank 0: {what}"):
        dist.broadcast_object_list(outcome, src=0)


def gather_shares(what: str, mine: Sequence[T]) -> list[T]:
    """All things in their global order, of which each rank holds its `World.share`."""
    here = world()
    if here.size == 1:
        return list(mine)
    parts: list[Any] = [None] * here.size
    with waiting_for(what):
        dist.all_gather_object(parts, list(mine))
    return [parts[i % here.size][i // here.size] for i in range(sum(map(len, parts)))]


def all_sum(what: str, values: Tensor) -> Tensor:
    """The sum over ranks of a vector, in fp64 on the CPU: exact for counts."""
    return _all_reduced(what, values, dist.ReduceOp.SUM)


def all_max(what: str, value: float) -> float:
    """The largest value of any rank."""
    return float(_all_reduced(what, torch.tensor([value]), dist.ReduceOp.MAX))


def _all_reduced(what: str, values: Tensor, operation: Any) -> Tensor:
    values = values.detach().to("cpu", torch.float64)
    if world().size > 1:
        with waiting_for(what):
            dist.all_reduce(values, operation)
    return values


@cache
def _mesh(device_type: str, size: int) -> Any:
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(device_type, (size,))


def shard(model: Decoder) -> None:
    """Split a model's parameters over the ranks, in place, layer by layer; alone it stays whole.

    Gradients are plain sums: dividing is the loss's business, and by global counts.
    """
    if world().size == 1 or is_spread(model):
        return
    from torch.distributed.fsdp import FSDPModule, fully_shard

    mesh = _mesh(model.embedding.weight.device.type, world().size)
    for module in (*model.layers, *(module.layer for module in model.mtp), model):
        sharded = fully_shard(module, mesh=mesh)
        assert isinstance(sharded, FSDPModule)
        sharded.set_force_sum_reduction_for_comms(True)
        sharded.set_gradient_divide_factor(1.0)


def reduce_gradients(model: Decoder, now: bool) -> None:
    """Whether the next backward pass exchanges gradients, or lets them add up for a later one that does."""
    if is_spread(model):
        model.set_requires_gradient_sync(now)  # type: ignore[operator]


def sum_gradients(parameters: Sequence[Tensor]) -> None:
    """Add up the ranks' gradients of parameters that are whole on every rank, in one exchange."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if world().size == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat, dist.ReduceOp.SUM)
    for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def is_spread(model: Decoder) -> bool:
    """Whether `shard` has split a model (its parameters may be whole for the moment)."""
    return hasattr(model, "set_requires_gradient_sync")


def is_sharded(tensor: Tensor) -> bool:
    """Whether a tensor is spread over the ranks (a DTensor)."""
    return hasattr(tensor, "device_mesh")


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a tensor, sharing its memory; a tensor that is not spread is its own part."""
    return tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]


@torch.no_grad()
def whole(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """A full tensor from every rank's part; a plain one is taken as this rank's part if `like` is spread."""
    if not is_sharded(tensor):
        if like is None or not is_sharded(like):
            return tensor
        from torch.distributed.tensor import DTensor

        assert isinstance(like, DTensor)
        mesh, placements = like.device_mesh, like.placements
        tensor = DTensor.from_local(
            tensor, mesh, placements, run_check=False, shape=like.shape, stride=like.stride()
        )
    with waiting_for("the other ranks' parts of a tensor"):
        return tensor.full_tensor()  # type: ignore[attr-defined]


@torch.no_grad()
def part_of(full: Tensor, like: Tensor) -> Tensor:
    """This rank's part of a full tensor that is to be spread as `like` is."""
    if not is_sharded(like):
        return full
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(like, DTensor)
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None).to_local()


def whole_tensors(tensors: Mapping[str, Tensor], everywhere: bool = False) -> dict[str, Tensor]:
    """Full tensors by name: on every rank, or on the first one alone (the others get none)."""
    kept = everywhere or world().is_first
    gathered: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        full = whole(tensor)
        if kept:
            gathered[name] = full
    return gathered


@torch.no_grad()
def copy_into(target: Tensor, source: Tensor) -> None:
    """Overwrite a tensor, spread or not, with one of the same shape, spread alike or full."""
    local(target).copy_(local(source) if is_sharded(source) else part_of(source, target))


def gathered(model: Decoder) -> Decoder:
    """A whole model on every rank: the model itself if it is not sharded, else a new one with its weights."""
    if not is_spread(model):
        return model
    copy = Decoder(model.config).to(model.embedding.weight.device)
    state = whole_tensors(model.state_dict(), everywhere=True)
    copy.load_state_dict(state)
    return copy.train(model.training)


@torch.no_grad()
def gradient_norm(gradients: Sequence[Tensor]) -> float:
    """The global 2-norm of gradients, each spread over the ranks or the same on all."""
    parts = [local(gradient) for gradient in gradients]
    if not any(is_sharded(gradient) for gradient in gradients):
        return float(torch.stack(torch._foreach_norm(parts)).norm())
    squares = torch.stack(torch._foreach_norm(parts)).double().square()
    own = torch.tensor([is_sharded(g) or world().is_first for g in gradients], device=squares.device)
    return float(all_sum("the other ranks' gradient norms", (squares * own).sum().reshape(1)).sqrt())


def roll_out_together(
    sampler: Sampler,
    tokenizer: Tokenizer,
    problems: Sequence[Problem],
    num_samples: int,
    sampling: Sampling,
    key: Callable[[Problem], int],
    verifiers: VerifierPool,
) -> list[Group]:
    """As `roll_out`, each rank sampling and judging its share of the problems; all ranks get all groups."""
    mine = [problems[i] for i in world().share(len(problems))]
    groups = roll_out(sampler, tokenizer, mine, num_samples, sampling, key, verifiers)
    return gather_shares("the other ranks' samples", groups)
