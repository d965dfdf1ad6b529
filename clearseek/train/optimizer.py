"""AdamW (arXiv:1711.05101) for everything, or Muon for the layers' matrices and AdamW for the rest.

State is kept by parameter name, so that a resume point does not depend on the order of parameters.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from clearseek.config.recipe import Optimizer as OptimizerConfig
from clearseek.train.parallel import copy_into, gradient_norm, local, part_of, whole

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # quintic coefficients, Jordan et al. 2024 ("Muon")
_NEWTON_SCHULZ_STEPS = 5


def is_muon_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon takes a parameter: matrices inside layers, not embeddings, heads or routers."""
    inside = name.startswith(("layers.", "mtp."))
    return inside and parameter.ndim >= 2 and not name.endswith(("router.weight", "bias"))


class Optimizer:
    """One optimiser over named parameters; `step` takes the schedule's share of the peak rates."""

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]], config: OptimizerConfig) -> None:
        self.config = config
        self.muon: dict[str, nn.Parameter] = {}
        self.adamw: dict[str, nn.Parameter] = {}
        for name, parameter in parameters:
            if not parameter.requires_grad:
                continue
            chosen = self.muon if config.name == "muon" and is_muon_matrix(name, parameter) else self.adamw
            chosen[name] = parameter
        self.momentum = {name: torch.zeros_like(parameter) for name, parameter in self.muon.items()}
        decayed = [p for p in self.adamw.values() if p.ndim >= 2]
        kept = [p for p in self.adamw.values() if p.ndim < 2]
        self._adamw = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=config.betas,
            fused=True,
        )

    @property
    def parameters(self) -> list[nn.Parameter]:
        """Everything that is trained."""
        return [*self.muon.values(), *self.adamw.values()]

    def step(self, share: float) -> None:
        """Update every parameter that has a gradient and drop the gradients."""
        for group in self._adamw.param_groups:
            group["lr"] = self.config.learning_rate * share
        self._adamw.step()
        self._muon_step(self.config.muon_learning_rate * share)
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def _muon_step(self, rate: float) -> None:
        """Nesterov momentum, orthogonalised; matrices of one shape go through together."""
        by_shape: dict[torch.Size, list[str]] = defaultdict(list)
        updates: dict[str, Tensor] = {}
        for name, parameter in self.muon.items():
            if parameter.grad is None:
                continue
            gradient, buffer = local(parameter.grad), local(self.momentum[name])
            buffer.lerp_(gradient, 1 - self.config.momentum)
            updates[name] = whole(gradient.lerp(buffer, self.config.momentum), like=parameter)
            by_shape[parameter.shape[-2:]].append(name)
        for shape, names in by_shape.items():
            stacked = torch.cat([updates[name].reshape(-1, *shape) for name in names])
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            pieces = orthogonalise(stacked).split([updates[name].numel() // shape.numel() for name in names])
            for name, piece in zip(names, pieces, strict=True):
                parameter = self.muon[name]
                mine = local(parameter)
                mine.mul_(1 - rate * self.config.weight_decay)
                mine.add_(part_of(piece.view(parameter.shape), parameter), alpha=-rate * scale)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that a resumed run needs, by name."""
        state = {f"muon.momentum.{name}": buffer for name, buffer in self.momentum.items()}
        for name, parameter in self.adamw.items():
            for key, value in self._adamw.state.get(parameter, {}).items():
                state[f"adamw.{key}.{name}"] = value
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `state` gave."""
        for name, buffer in self.momentum.items():
            copy_into(buffer, state[f"muon.momentum.{name}"])
        for name, parameter in self.adamw.items():
            keys = {
                key: state[f"adamw.{key}.{name}"]
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"adamw.{key}.{name}" in state
            }
            if keys:
                self._adamw.state[parameter] = {key: _placed(value, parameter) for key, value in keys.items()}


def _placed(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A copy of a saved tensor where its parameter lives; one of its shape is spread over the ranks alike."""
    if value.shape != parameter.shape:
        return value.clone().to(parameter.device)
    placed = torch.zeros_like(parameter, requires_grad=False)
    copy_into(placed, value)
    return placed


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest semi-orthogonal matrices to [N, rows, columns], by five Newton-Schulz steps in bf16."""
    a, b, c = _NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> float:
    """Scale the gradients so that their global norm is at most `largest`; returns the norm before."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = gradient_norm(gradients)
    torch._foreach_mul_([local(gradient) for gradient in gradients], min(1.0, largest / (norm + 1e-6)))
    return norm
