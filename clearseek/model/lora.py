"""Low-rank adapters (LoRA, arXiv:2106.09685): a published module's map W becomes W + scale · B A; W never changes.

The decoder knows nothing of them: a pass runs with merged weights, made once for each pass and differentiable in the
factors, so that every form of a layer (fused kernels, absorbed attention, stacked experts) serves adapted weights as it
serves plain ones, and what samples computes with the same numbers as what learns.

Shapes: R rank, C inputs, D outputs of a published module; A is [R, C], B is [D, R], both fp32.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from clearseek.config.errors import InputError
from clearseek.config.load import nearest
from clearseek.config.lora import ALL_LINEAR, Lora
from clearseek.config.model import ModelConfig
from clearseek.model.decoder import Decoder
from clearseek.model.families import pieces_of
from clearseek.model.families.pieces import Piece

_WEIGHT = ".weight"
_INDEXER = ".indexer."  # DeepSeek-V3.2's, which only chooses what is attended to: no gradient reaches it


@dataclass(frozen=True, slots=True)
class Module:
    """A linear map as it is published: where it lies in our parameters, and its shape [D, C]."""

    piece: Piece
    shape: tuple[int, int]


def linear_modules(config: ModelConfig) -> dict[str, Module]:
    """Every published linear map inside the main layers by its name, such as `model.layers.0.self_attn.q_proj`.

    Routers, embedding, head and multi-token modules are none.
    """
    with torch.device("meta"):
        state = Decoder(config).state_dict()
    found = {}
    for piece in pieces_of(config):
        inside = (
            piece.kind == "own" and piece.ours.startswith("layers.") and piece.published.endswith(_WEIGHT)
        )
        if inside and not piece.ours.endswith("router.weight"):
            shape = tuple(piece.of(state[piece.ours]).shape)
            if len(shape) == 2:
                found[piece.published.removesuffix(_WEIGHT)] = Module(piece, (shape[0], shape[1]))
    return found


def targeted(config: ModelConfig, targets: list[str], place: str = "targets") -> dict[str, Module]:
    """The modules that targets name; InputError, beginning with `place`, for one that names none.

    `all-linear` leaves out those that no gradient reaches.
    """
    modules = linear_modules(config)
    learning = [name for name, module in modules.items() if _INDEXER not in module.piece.ours]
    chosen: set[str] = set()
    for target in targets:
        named = learning if target == ALL_LINEAR else [name for name in modules if is_named(name, target)]
        if not named:
            known = sorted({name.rpartition(".")[2] for name in modules} | {ALL_LINEAR})
            listed = "" if "known" in (hint := nearest(target, known)) else f" (known: {', '.join(known)})"
            raise InputError(f"{place}: {target!r} names no linear map of this {config.family}{hint}{listed}")
        chosen.update(named)
    return {name: module for name, module in modules.items() if name in chosen}


def is_named(name: str, target: str) -> bool:
    """PEFT's rule: the whole name, or its end from a dot on."""
    return f".{name}".endswith(f".{target}")


class Adapter:
    """The factors of one adapter, A and B for each module that it adapts."""

    def __init__(
        self, settings: Lora, modules: dict[str, Module], factors: Mapping[str, tuple[Tensor, Tensor]]
    ) -> None:
        """Factors [R, C] and [D, R] for every module; they become parameters where they lie."""
        self.settings, self.modules = settings, modules
        self.factors = {name: (nn.Parameter(a), nn.Parameter(b)) for name, (a, b) in factors.items()}

    @classmethod
    def fresh(cls, config: ModelConfig, settings: Lora, key: Callable[[str], int], place: str) -> "Adapter":
        """One that changes nothing yet; `key` addresses the random numbers of a module by its name.

        Raises InputError, beginning with `place`, for targets that name nothing, or what can't learn.
        """
        assert settings.targets is not None
        assert settings.rank is not None
        modules = targeted(config, settings.targets, place)
        for name, module in modules.items():
            if _INDEXER in module.piece.ours:
                raise InputError(f"{place}: {name} only chooses what is attended to, no gradient reaches it")
        factors = {
            name: first_factors(module.shape, settings.rank, key(name)) for name, module in modules.items()
        }
        return cls(settings, modules, factors)

    def to(self, device: torch.device | str) -> "Adapter":
        """Move the factors, in place."""
        for _, parameter in self.named_parameters():
            parameter.data = parameter.data.to(device)
        return self

    def frozen(self) -> "Adapter":
        """A copy that learns no more."""
        copied = Adapter(
            self.settings,
            self.modules,
            {n: (a.detach().clone(), b.detach().clone()) for n, (a, b) in self.factors.items()},
        )
        for _, parameter in copied.named_parameters():
            parameter.requires_grad_(False)
        return copied

    @property
    def num_parameters(self) -> int:
        """Elements of all factors."""
        return sum(parameter.numel() for _, parameter in self.named_parameters())

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Both factors of every module, under the names that PEFT gives them."""
        for name, (a, b) in self.factors.items():
            yield f"{name}.lora_A.weight", a
            yield f"{name}.lora_B.weight", b

    def state_dict(self) -> dict[str, Tensor]:
        """The factors by name, sharing their memory."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    def merged(self, model: Decoder, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """Each adapted parameter of the model with its products added, in `dtype` (default: its own).

        Gradients reach the factors. Where `dtype` is narrower the sum is rounded once.
        """
        parameters = dict(model.named_parameters())
        return {
            ours: _Merge.apply(parameters[ours].detach(), dtype, self.settings.scale, pieces, *factors)
            for ours, (pieces, factors) in self._by_parameter().items()
        }

    def _by_parameter(self) -> dict[str, tuple[list[Piece], list[nn.Parameter]]]:
        """The pieces of each of our parameters that are adapted, and their factors, A and B in turn."""
        grouped: dict[str, tuple[list[Piece], list[nn.Parameter]]] = defaultdict(lambda: ([], []))
        for name, factors in self.factors.items():
            pieces, listed = grouped[self.modules[name].piece.ours]
            pieces.append(self.modules[name].piece)
            listed.extend(factors)
        return grouped

    @torch.no_grad()
    def merge_into(self, model: Decoder) -> None:
        """Add the products to the model's own parameters, in place."""
        parameters = dict(model.named_parameters())
        for ours, tensor in self.merged(model).items():
            parameters[ours].copy_(tensor)

    @torch.no_grad()
    def merged_model(self, model: Decoder) -> Decoder:
        """A decoder with the products added, which shares with `model` whatever is not adapted."""
        with torch.device("meta"):
            merged = Decoder(model.config)
        merged.load_state_dict(model.state_dict() | self.merged(model), assign=True)
        return merged.train(model.training)


def first_factors(shape: tuple[int, int], rank: int, key: int) -> tuple[Tensor, Tensor]:
    """A uniform within 1/√C as PEFT begins, drawn from the stream that `key` addresses; B zero."""
    outputs, inputs = shape
    generator = torch.Generator().manual_seed(key % 2**63)
    a = torch.rand(rank, inputs, generator=generator).mul_(2).sub_(1).div_(math.sqrt(inputs))
    return a, torch.zeros(outputs, rank)


def adapter_parameters(modules: Mapping[str, Module], rank: int) -> int:
    """Elements of the factors over such modules."""
    return sum(rank * (module.shape[0] + module.shape[1]) for module in modules.values())


class _Merge(torch.autograd.Function):
    """W + scale · B A over the pieces of one parameter; one copy forward, one pass over its gradient back."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        dtype: torch.dtype | None,
        scale: float,
        pieces: list[Piece],
        *factors: Tensor,
    ) -> Tensor:
        """The sum in fp32 or wider, rounded to `dtype` at the end."""
        ctx.scale, ctx.pieces = scale, pieces
        ctx.save_for_backward(*factors)
        wide = torch.promote_types(weight.dtype, factors[0].dtype)
        merged = weight.to(wide, copy=True)
        for piece, a, b in zip(pieces, factors[::2], factors[1::2], strict=True):
            place = piece.of(merged)
            assert place.untyped_storage().data_ptr() == merged.untyped_storage().data_ptr(), piece
            place.add_(b @ a, alpha=scale)
        return merged.to(dtype or weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Gradients of both factors of every piece; the weight is frozen."""
        factors, found = ctx.saved_tensors, []
        for piece, a, b in zip(ctx.pieces, factors[::2], factors[1::2], strict=True):
            slope = piece.of(gradients[0]).to(a.dtype)
            found += [ctx.scale * (b.T @ slope), ctx.scale * (slope @ a.T)]
        return None, None, None, None, *found
