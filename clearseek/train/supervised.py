"""The loop of pretraining, fine-tuning and distillation: packed rows, one loss, resumable at any step."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict

from torch import Tensor

from clearseek.config.recipe import SupervisedStage
from clearseek.model.decoder import Decoder
from clearseek.text.packing import Rows, row_numbers
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.context import StageContext
from clearseek.train.flops import training_flops
from clearseek.train.learner import Learner, Loss, MicroBatch, micro_batches, weighted_sum
from clearseek.train.parallel import world
from clearseek.train.schedule import rate_at
from clearseek.train.state import latest_resume_point, save_resume_point


def mean_loss(num_counted: float) -> Loss:
    """Cross-entropy averaged over the counted tokens of the whole batch."""

    def loss(log_probs: Tensor, batch: MicroBatch) -> Tensor:
        return -weighted_sum(log_probs, batch.target_weights) / num_counted

    return loss


def rows_of_step(rows: Rows, step: int, batch_rows: int, seed: int, stage: str) -> Rows:
    """The rows of one step: the data in a new order every epoch, addressed by the step alone."""
    return rows.take(row_numbers(len(rows), step, batch_rows, seed, stage))


def train_on_rows(
    context: StageContext,
    stage: SupervisedStage,
    model: Decoder,
    tokenizer: Tokenizer,
    rows: Rows,
    total_steps: int,
    batch_rows: int,
    make_loss: Callable[[float], Loss] | None = None,
) -> dict[str, float]:
    """Train for `total_steps` steps, from the latest resume point if there is one; returns totals.

    `make_loss` gives the loss for a number of counted tokens (default: cross-entropy).
    """
    length = stage.sequence_length
    compiled = context.compile_for(model, total_steps * batch_rows * length, length)
    learner = Learner(model, stage, context.dtype, compiled, context.adapter)
    if stage.linear_dtype == "int8" and learner.why_not_int8:
        dtype = str(context.dtype).removeprefix("torch.")
        context.progress.note(
            f"{context.stage}: linear layers learn in {dtype}, not in int8 (no kernels: {learner.why_not_int8})"
        )
    make_loss = make_loss or (lambda counted: mean_loss(counted))
    micro_rows = min(stage.micro_batch_rows, world().largest_share(batch_rows))
    first, totals = 0, {"tokens": 0.0, "flops": 0.0}
    point = latest_resume_point(context.partial_dir)
    if point is not None:
        point.check(context.stage, rows.fingerprint)
        point.restore(learner.trained, learner.optimizer)
        context.rewind(point)
        first, totals = point.step, dict(point.totals)
    for step in range(first, total_steps):
        chosen = rows_of_step(rows, step, batch_rows, context.recipe.seed, context.stage)
        counted, started = chosen.num_counted_tokens, time.perf_counter()
        batches = micro_batches(chosen, micro_rows, context.device, fill=compiled)
        share = rate_at(stage.schedule, step, total_steps)
        with_mtp = bool(stage.mtp_loss_weight) and step % stage.mtp_every == 0
        result = learner.step(batches, make_loss(max(counted, 1)), share, batch_rows, with_mtp=with_mtp)
        seconds = time.perf_counter() - started
        totals["tokens"] += chosen.tokens.size - chosen.num_padding_tokens
        totals["flops"] += training_flops(model.config, batch_rows * length, length, with_mtp)
        numbers = asdict(result) | {"learning_rate": stage.optimizer.learning_rate * share}
        context.record("step", step=step + 1, tokens=counted, **numbers)
        done = step + 1
        context.progress.step(
            done, total_steps, loss=result.loss, tokens_per_second=batch_rows * length / seconds
        )
        if stage.evaluate_every and done % stage.evaluate_every == 0 and done < total_steps:
            context.examine(learner.whole_model(), tokenizer, done)
        if done % stage.checkpoint_every == 0 and done < total_steps:
            context.timings.append("step", context.stage, done, tokens=totals["tokens"])
            saved = context.resume_point(done, rows.fingerprint, totals)
            save_resume_point(context.partial_dir, saved, learner.trained, learner.optimizer)
    return totals


def steps_for_tokens(tokens: int, batch_rows: int, sequence_length: int) -> int:
    """Optimiser steps that cover a token budget."""
    return max(1, math.ceil(tokens / (batch_rows * sequence_length)))


def steps_for_epochs(epochs: float, num_rows: int, batch_rows: int) -> int:
    """Optimiser steps that cover a number of passes over the rows."""
    return max(1, round(epochs * num_rows / batch_rows))
