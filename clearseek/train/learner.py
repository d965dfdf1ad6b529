"""One optimiser step, whatever the stage: micro-batches in, one update out.

The gradient does not know how it was computed: a loss is a sum over tokens divided once by counts of the
whole batch, so any split into micro-batches, any padding and any number of ranks gives the same update.

Shapes: B rows, T positions that are predicted from (rows hold T + 1 tokens).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from clearseek.config.errors import RunError
from clearseek.config.recipe import SupervisedStage, TrainStage
from clearseek.model.allocation import keep_freed_memory
from clearseek.model.attention import without_last
from clearseek.model.compiling import compile_layers
from clearseek.model.decoder import Decoder, Hidden
from clearseek.model.experts import Router
from clearseek.model.kernels.library import why_not_fit
from clearseek.model.log_probs import target_log_probs
from clearseek.model.lora import Adapter
from clearseek.text.packing import Rows
from clearseek.train.optimizer import Optimizer, clip_gradients
from clearseek.train.parallel import (
    all_sum,
    gathered,
    reduce_gradients,
    shard,
    sum_gradients,
    waiting_for,
    world,
)


@dataclass
class MicroBatch:
    """Packed rows on the device; `extras` hold more numbers per predicted token, [B, T] each."""

    tokens: Tensor  # [B, T + 1] int64
    segments: Tensor  # [B, T + 1] int32
    weights: Tensor  # [B, T + 1] fp32
    extras: dict[str, Tensor] = field(default_factory=dict)
    parents: Tensor | None = None  # [B, T + 1] int32: the segment that each token's own continues

    @property
    def targets(self) -> Tensor:
        """The tokens to predict, [B, T]."""
        return self.tokens[:, 1:]

    @property
    def input_segments(self) -> Tensor:
        """The segments of the tokens that predict, [B, T]; a document's last one is as padding, not counted.

        Else a router's load would depend on whether a document ends with its row or before.
        """
        return without_last(self.segments, self.parents)[:, :-1]

    @property
    def input_parents(self) -> Tensor | None:
        """The parents of the tokens that predict, [B, T]."""
        return None if self.parents is None else self.parents[:, :-1]

    @property
    def target_weights(self) -> Tensor:
        """What each prediction counts, [B, T]."""
        return self.weights[:, 1:]

    def future_weights(self, depth: int) -> Tensor:
        """What predicting the token `depth` further on counts, [B, T]: only within the same document."""
        shift = 1 + depth
        weights = torch.zeros_like(self.target_weights)
        same = self.segments[:, shift:] == self.segments[:, :-shift]
        weights[:, : weights.shape[1] - depth] = self.weights[:, shift:] * same
        return weights

    def future_targets(self, depth: int) -> Tensor:
        """The tokens `depth` further on than the next, [B, T]; the last `depth` are arbitrary."""
        return self.tokens[:, 1:].roll(-depth, dims=1)


Loss = Callable[
    [Tensor, MicroBatch], Tensor
]  # log-probabilities [B, T] → a sum already divided by global counts


@dataclass
class StepResult:
    """What one step measured, over the whole batch."""

    loss: float
    grad_norm: float
    mtp_loss: float
    balance_loss: float
    expert_load_max: float  # busiest expert's share of a layer's tokens times the number of experts


def split_rows(array: np.ndarray, size: int, fill: bool = False) -> tuple[Tensor, ...]:
    """This rank's share of rows in pieces of `size`, as many on every rank; `fill` makes the last one whole too.

    Rows of zeros fill up: what is compiled wants static shapes, what isn't would compute them for nothing.
    """
    here = world()
    mine = array[here.rank :: here.size]
    count = here.largest_share(len(array))
    missing = count + (-count % size) * fill - len(mine)
    return torch.from_numpy(np.pad(mine, ((0, missing), (0, 0)))).split(size)


def micro_batches(rows: Rows, size: int, device: torch.device, fill: bool = False) -> list[MicroBatch]:
    """This rank's share of rows in micro-batches of `size`; see `split_rows`."""
    parts = [split_rows(array, size, fill) for array in (rows.tokens, rows.segments, rows.weights)]
    return [
        MicroBatch(t.long().to(device), s.to(device), w.to(device)) for t, s, w in zip(*parts, strict=True)
    ]


class Learner:
    """A model in training: its optimiser and its compiled forward pass.

    With `exact` latents are absorbed, as in the engine.
    With an `adapter` the model is frozen and whole on every rank, and the adapter's factors learn.
    `why_not_int8`: what keeps its linear layers from multiplying in int8; None: they do.
    """

    def __init__(
        self,
        model: Decoder,
        stage: TrainStage,
        dtype: torch.dtype,
        compile: bool,
        adapter: Adapter | None = None,
        exact: bool = False,
    ) -> None:
        self.model, self.stage, self.dtype, self.adapter = model, stage, dtype, adapter
        self.is_compiled = compile
        wants_int8 = isinstance(stage, SupervisedStage) and stage.linear_dtype == "int8"
        self.why_not_int8 = (
            why_not_fit(dtype, model.embedding.weight) if wants_int8 else "it was not asked for"
        )
        model.learn_in_int8(self.why_not_int8 is None)
        model.absorb_latents(exact)
        keep_freed_memory()
        if adapter is None:
            shard(model)
        else:
            model.requires_grad_(False)
        self.optimizer = Optimizer(self.trained.named_parameters(), stage.optimizer)
        if compile:
            compile_layers(model)

    @property
    def trained(self) -> Decoder | Adapter:
        """What learns, and what a resume point keeps."""
        return self.model if self.adapter is None else self.adapter

    def whole_model(self) -> Decoder:
        """A plain model with the weights of now, on every rank, to sample from or to save."""
        return gathered(self.model) if self.adapter is None else self.adapter.merged_model(self.model)

    @property
    def mtp_depth(self) -> int:
        """How many tokens further on than the next the stage learns to predict."""
        return len(self.model.mtp) if self.stage.mtp_loss_weight else 0

    def log_probs(self, batch: MicroBatch, depth: int = 0, temperature: float = 1.0) -> tuple[Tensor, Hidden]:
        """Log-probability of every target that counts, [B, T], 0 elsewhere, and the pass it came from."""
        with waiting_for("the other ranks' parts of the weights"):
            inputs = batch.tokens[:, :-1], batch.input_segments, self.dtype, depth, batch.input_parents
            weights = {} if self.adapter is None else self.adapter.merged(self.model, self.dtype)
            hidden = functional_call(self.model, weights, inputs) if weights else self.model(*inputs)
        return self._counted_log_probs(
            hidden.states, batch.targets, batch.target_weights, temperature
        ), hidden

    def _counted_log_probs(
        self, states: Tensor, targets: Tensor, weights: Tensor, temperature: float
    ) -> Tensor:
        """The head sees only positions whose weight is not 0: about half of them in packed chat rows."""
        where = weights.flatten().nonzero().squeeze(-1)
        chosen = states.flatten(0, 1).index_select(0, where)
        wanted = targets.flatten().index_select(0, where)
        log_probs = target_log_probs(chosen, self.model.head_weight, wanted, temperature)
        return torch.zeros_like(weights).flatten().scatter(0, where, log_probs).view_as(weights)

    def step(
        self,
        batches: Sequence[MicroBatch],
        loss: Loss,
        share: float,
        num_rows: int,
        temperature: float = 1.0,
        with_mtp: bool = True,
    ) -> StepResult:
        """One update from all micro-batches; `num_rows` is the number of rows of the global batch.

        `with_mtp`: whether this step trains multi-token prediction too, where the stage does at all.

        Raises RunError when the gradient is not finite; nothing has been updated then.
        """
        stage, self.model.training = self.stage, True
        depth = self.mtp_depth if with_mtp else 0
        future_counts = self._future_counts(batches, depth)
        totals, loads = torch.zeros(3), []
        with waiting_for("the other ranks' gradients"):
            for number, batch in enumerate(batches, start=1):
                reduce_gradients(self.model, now=number == len(batches))
                log_probs, hidden = self.log_probs(batch, depth, temperature)
                parts = [loss(log_probs, batch), self._mtp_loss(batch, hidden, future_counts)]
                parts.append(sum((load.balance_loss for load in hidden.loads), torch.zeros(())) / num_rows)
                weighted = parts[0] + stage.mtp_loss_weight * parts[1] + stage.balance_loss_weight * parts[2]
                weighted.backward()
                totals += torch.stack([part.detach().cpu() for part in parts])
                loads.append([load.tokens_per_expert for load in hidden.loads])
            if self.adapter is not None:
                sum_gradients(self.optimizer.parameters)
        grad_norm = clip_gradients(self.optimizer.parameters, stage.optimizer.gradient_clip)
        if not np.isfinite(grad_norm):
            raise RunError(f"gradient norm is {grad_norm}; lower the learning rate or look at the data")
        self.optimizer.step(share)
        counts = [torch.stack(layer).sum(0) for layer in zip(*loads, strict=True)]
        totals, counts = _over_ranks(totals, counts)
        load_max = update_selection_bias(self.model, counts, stage.bias_update_rate)
        return StepResult(float(totals[0]), grad_norm, float(totals[1]), float(totals[2]), load_max)

    def _future_counts(self, batches: Sequence[MicroBatch], depth: int) -> list[float]:
        """How many tokens each depth of multi-token prediction counts in the global batch, at least 1."""
        if not depth:
            return []
        counts = [sum(float(b.future_weights(k + 1).sum()) for b in batches) for k in range(depth)]
        return all_sum("the other ranks' token counts", torch.tensor(counts)).clamp(min=1.0).tolist()

    def _mtp_loss(self, batch: MicroBatch, hidden: Hidden, counts: list[float]) -> Tensor:
        """Mean over depths of the loss of predicting further tokens (arXiv:2412.19437, eq. 24-25)."""
        total = torch.zeros(())
        for k, states in enumerate(hidden.predicted_states, start=1):
            weights = batch.future_weights(k)
            log_probs = self._counted_log_probs(states, batch.future_targets(k), weights, 1.0)
            total = total - weighted_sum(log_probs, weights) / counts[k - 1] / len(counts)
        return total


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """The sum of values times weights; where a weight is 0 the value does not matter, even if it is NaN."""
    return (values.masked_fill(weights == 0, 0.0) * weights).sum()


def _over_ranks(totals: Tensor, counts: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Losses and every router's load summed over the ranks, in one exchange."""
    if world().size == 1:
        return totals, counts
    flat = torch.cat([totals, *(count.cpu() for count in counts)])
    summed = all_sum("the other ranks' losses and loads", flat).float().split([3, *map(len, counts)])
    return summed[0], [part.to(count.device) for part, count in zip(summed[1:], counts, strict=True)]


@torch.no_grad()
def update_selection_bias(model: Decoder, counts: Sequence[Tensor], rate: float) -> float:
    """Move each router's bias towards its underused experts, once per step, and keep its mean at zero; rate 0: not.

    Routers of families that have no such bias stay without.

    `counts` are in the order of `model.routers()`; routers beyond the list (multi-token modules that did not
    run) stay as they are. Returns the worst load: busiest expert ÷ mean.
    """
    worst = 0.0
    for router, tokens in zip(model.routers(), counts, strict=False):
        assert isinstance(router, Router)
        mean = tokens.mean()
        if rate and router.selection_bias is not None:
            bias = router.selection_bias + rate * torch.sign(mean - tokens)
            router.selection_bias.copy_(bias - bias.mean())
        worst = max(worst, float(tokens.max() / mean.clamp(min=1.0)))
    return worst
