"""The loop of pretraining, fine-tuning and distillation: packed rows, one loss, resumable at any step."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import Tensor

from clearseek.config.recipe import SupervisedStage
from clearseek.model.decoder import Decoder
from clearseek.text.packing import Rows, row_numbers
from clearseek.text.tokenizer import Tokenizer
from clearseek.train.context import StageContext
from clearseek.train.flops import training_flops
from clearseek.train.keeper import StateKeeper
from clearseek.train.learner import Learner, Loss, MicroBatch, micro_batches, weighted_sum
from clearseek.train.parallel import world
from clearseek.train.schedule import rate_at


def mean_loss(num_counted: float) -> Loss:
    """Cross-entropy averaged over the counted tokens of the whole batch."""

    def loss(log_probs: Tensor, batch: MicroBatch) -> Tensor:
        return -weighted_sum(log_probs, batch.target_weights) / num_counted

    return loss


def rows_of_step(rows: Rows, step: int, batch_rows: int, seed: int, stage: str) -> Rows:
    """The rows of one step: the data in a new order every epoch, addressed by the step alone."""
    return rows.take(row_numbers(len(rows), step, batch_rows, seed, stage))


class SupervisedTrainer:
    """One stage that learns from rows; `make_loss` gives the loss for a number of counted tokens."""

    def __init__(
        self,
        context: StageContext,
        stage: SupervisedStage,
        model: Decoder,
        tokenizer: Tokenizer,
        rows: Rows,
        total_steps: int,
        make_loss: Callable[[float], Loss] = mean_loss,
    ) -> None:
        self.context, self.stage, self.tokenizer, self.rows = context, stage, tokenizer, rows
        self.total_steps, self.make_loss = total_steps, make_loss
        length = stage.sequence_length
        compiled = context.compile_for(model, total_steps * stage.batch_rows * length, length)
        self.learner = Learner(model, stage, context.dtype, compiled, context.adapter)
        self.keeper = StateKeeper(context, stage, self.learner, total_steps)
        self.totals = {"tokens": 0.0, "flops": 0.0}
        if stage.linear_dtype == "int8" and self.learner.why_not_int8:
            dtype = str(context.dtype).removeprefix("torch.")
            context.progress.note(
                f"{context.stage}: linear layers learn in {dtype}, not in int8 "
                f"(no kernels: {self.learner.why_not_int8})"
            )

    def run(self) -> dict[str, float]:
        """All steps, from where the stage goes on if it was begun; returns totals."""
        stage, context = self.stage, self.context
        resumed = self.keeper.resume(self.rows.fingerprint)
        first = 0
        if resumed is not None:
            first, self.totals = resumed[0].step, dict(resumed[0].totals)
        for step in range(first, self.total_steps):
            started = time.perf_counter()
            numbers = self.step(step)
            done = step + 1
            hashed = self.keeper.hashed(done, done == self.total_steps)
            context.record("step", step=done, **numbers, **hashed)
            rate = stage.batch_rows * stage.sequence_length / (time.perf_counter() - started)
            context.progress.step(done, self.total_steps, loss=numbers["loss"], tokens_per_second=rate)
            if stage.evaluate_every and done % stage.evaluate_every == 0 and done < self.total_steps:
                context.examine(self.learner.whole_model(), self.tokenizer, done)
            self.keeper.save(done, self.rows.fingerprint, self.totals)
        return self.totals

    def step(self, step: int) -> dict[str, Any]:
        """One update (from 0); what its record says."""
        stage, context = self.stage, self.context
        chosen = rows_of_step(self.rows, step, stage.batch_rows, context.recipe.seed, context.stage)
        counted = chosen.num_counted_tokens
        micro_rows = min(stage.micro_batch_rows, world().largest_share(stage.batch_rows))
        batches = micro_batches(chosen, micro_rows, context.device, fill=self.learner.is_compiled)
        share = rate_at(stage.schedule, step, self.total_steps)
        with_mtp = bool(stage.mtp_loss_weight) and step % stage.mtp_every == 0
        loss = self.make_loss(max(counted, 1))
        result = self.learner.step(batches, loss, share, stage.batch_rows, with_mtp=with_mtp)
        self.totals["tokens"] += chosen.tokens.size - chosen.num_padding_tokens
        length, config = stage.sequence_length, self.learner.model.config
        self.totals["flops"] += training_flops(config, stage.batch_rows * length, length, with_mtp)
        return {"tokens": counted} | asdict(result) | {"learning_rate": stage.optimizer.learning_rate * share}


def steps_for_tokens(tokens: int, batch_rows: int, sequence_length: int) -> int:
    """Optimiser steps that cover a token budget."""
    return max(1, math.ceil(tokens / (batch_rows * sequence_length)))


def steps_for_epochs(epochs: float, num_rows: int, batch_rows: int) -> int:
    """Optimiser steps that cover a number of passes over the rows."""
    return max(1, round(epochs * num_rows / batch_rows))
