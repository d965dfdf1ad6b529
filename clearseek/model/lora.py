"""Low-rank adapters (LoRA, arXiv:2106.09685): a published module's map W becomes W + scale · B A; W never changes.

The decoder knows nothing of them: a pass runs with merged weights, made once for each pass and differentiable in the
factors, so that every form of a layer (fused kernels, absorbed attention, stacked experts) serves adapted weights as it
serves plain ones, and what samples computes with the same numbers as what learns.

Shapes: R rank, C inputs, D outputs of a published module; A is [R, C], B is [D, R], both fp32. Of a layer's E experts
together A is [E · R, C], B is [D, R · E], as PEFT keeps them.
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
from clearseek.model.families.pieces import Layout, Piece

_WEIGHT = ".weight"
_INDEXER = ".indexer."  # DeepSeek-V3.2's, which only chooses what is attended to: no gradient reaches it


@dataclass(frozen=True, slots=True)
class Module:
    """A linear map as it is published: where it lies in our parameters, and its shape [D, C].

    Of `experts` there is one such map each, in one published tensor.
    """

    piece: Piece
    shape: tuple[int, int]
    experts: int | None = None

    @property
    def num_weights(self) -> int:
        """Of the map, or of all experts' maps."""
        return self.shape[0] * self.shape[1] * (self.experts or 1)

    def factor_shapes(self, rank: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Of A and of B."""
        (outputs, inputs), rows = self.shape, rank * (self.experts or 1)
        return (rows, inputs), (outputs, rows)

    def add_product(self, whole: Tensor, a: Tensor, b: Tensor, scale: float) -> None:
        """Add scale · B A to its place in one of our parameters."""
        place = self.piece.of(whole)
        assert place.untyped_storage().data_ptr() == whole.untyped_storage().data_ptr(), self.piece
        if self.experts is None:
            place.add_(b @ a, alpha=scale)
            return
        each_a, each_b = self._each(a, b)
        product = each_b @ each_a  # [E, D, C]
        place.add_(
            (product if self.piece.layout == "plain" else product.mT).reshape(place.shape), alpha=scale
        )

    def gradients(self, whole: Tensor, a: Tensor, b: Tensor, scale: float) -> list[Tensor]:
        """Of A and B, from that of one of our parameters."""
        slope = self.piece.of(whole).to(a.dtype)
        if self.experts is None:
            return [scale * (b.T @ slope), scale * (slope @ a.T)]
        outputs, inputs = self.shape
        if self.piece.layout == "plain":
            slope = slope.reshape(self.experts, outputs, inputs)
        else:
            slope = slope.reshape(self.experts, inputs, outputs).mT
        each_a, each_b = self._each(a, b)
        of_a, of_b = each_b.mT @ slope, slope @ each_a.mT
        return [scale * of_a.reshape(a.shape), scale * of_b.permute(1, 2, 0).reshape(b.shape)]

    def _each(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of each expert: [E, R, C] and [E, D, R]."""
        count = self.experts or 1
        return a.view(count, -1, a.shape[1]), b.view(len(b), -1, count).permute(2, 0, 1)


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


def expert_parameters(config: ModelConfig) -> dict[str, Module]:
    """The maps of a layer's experts together, by transformers' names: `model.layers.0.mlp.experts.down_proj`."""
    with torch.device("meta"):
        state = Decoder(config).state_dict()
    layouts: tuple[tuple[str, str, Layout], ...] = (
        ("gate_up_proj", "gate_up", "interleaved" if config.expert_bias else "plain"),
        ("down_proj", "down", "transposed" if config.expert_bias else "plain"),
    )
    found = {}
    for number in filter(config.is_moe_layer, range(config.num_layers)):
        for theirs, mine, layout in layouts:
            piece = Piece(
                f"model.layers.{number}.mlp.experts.{theirs}",
                f"layers.{number}.feed_forward.{mine}",
                layout=layout,
            )
            experts, outputs, inputs = state[piece.ours].shape
            found[piece.published] = Module(piece, (outputs, inputs), experts)
    return found


def targeted(config: ModelConfig, targets: list[str], place: str = "targets") -> dict[str, Module]:
    """The modules that targets name; InputError, beginning with `place`, for one that names none.

    `all-linear` leaves out those that no gradient reaches.
    """
    modules = linear_modules(config)
    together = expert_parameters(config)
    learning = [name for name, module in modules.items() if _INDEXER not in module.piece.ours]
    chosen: set[str] = set()
    for target in targets:
        named = learning if target == ALL_LINEAR else [name for name in modules if is_named(name, target)]
        if "experts." in target:
            named = [*named, *(name for name in together if is_named(name, target))]
        if not named:
            known = sorted({name.rpartition(".")[2] for name in modules} | {ALL_LINEAR})
            listed = "" if "known" in (hint := nearest(target, known)) else f" (known: {', '.join(known)})"
            raise InputError(f"{place}: {target!r} names no linear map of this {config.family}{hint}{listed}")
        chosen.update(named)
    return {name: module for name, module in (modules | together).items() if name in chosen}


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
        factors = {name: first_factors(module, settings.rank, key(name)) for name, module in modules.items()}
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
            ours: _Merge.apply(parameters[ours].detach(), dtype, self.settings.scale, modules, *factors)
            for ours, (modules, factors) in self._by_parameter().items()
        }

    def _by_parameter(self) -> dict[str, tuple[list[Module], list[nn.Parameter]]]:
        """The modules in each of our parameters that are adapted, and their factors, A and B in turn."""
        grouped: dict[str, tuple[list[Module], list[nn.Parameter]]] = defaultdict(lambda: ([], []))
        for name, factors in self.factors.items():
            modules, listed = grouped[self.modules[name].piece.ours]
            modules.append(self.modules[name])
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


def first_factors(module: Module, rank: int, key: int) -> tuple[Tensor, Tensor]:
    """A uniform within 1/√C as PEFT begins, drawn from the stream that `key` addresses; B zero."""
    of_a, of_b = module.factor_shapes(rank)
    generator = torch.Generator().manual_seed(key % 2**63)
    a = torch.rand(of_a, generator=generator).mul_(2).sub_(1).div_(math.sqrt(module.shape[1]))
    return a, torch.zeros(of_b)


def adapter_parameters(modules: Mapping[str, Module], rank: int) -> int:
    """Elements of the factors over such modules."""
    shapes = (shape for module in modules.values() for shape in module.factor_shapes(rank))
    return sum(rows * columns for rows, columns in shapes)


class _Merge(torch.autograd.Function):
    """W + scale · B A over the modules in one parameter; one copy forward, one pass over its gradient back."""

    @staticmethod
    def forward(
        ctx: Any,
        weight: Tensor,
        dtype: torch.dtype | None,
        scale: float,
        modules: list[Module],
        *factors: Tensor,
    ) -> Tensor:
        """The sum in fp32 or wider, rounded to `dtype` at the end."""
        ctx.scale, ctx.modules = scale, modules
        ctx.save_for_backward(*factors)
        wide = torch.promote_types(weight.dtype, factors[0].dtype)
        merged = weight.to(wide, copy=True)
        for module, a, b in zip(modules, factors[::2], factors[1::2], strict=True):
            module.add_product(merged, a, b, scale)
        return merged.to(dtype or weight.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Any, ...]:
        """Gradients of both factors of every module; the weight is frozen."""
        factors, found = ctx.saved_tensors, []
        for module, a, b in zip(ctx.modules, factors[::2], factors[1::2], strict=True):
            found += module.gradients(gradients[0], a, b, ctx.scale)
        return None, None, None, None, *found
