"""Group-relative policy optimisation: sample groups, reward them by their verdicts, take a step, repeat.

On policy: with one update per batch the ratio is 1 by construction and clipping is inert, as it should be.
What is left out on purpose: value networks, reward models, asynchronous rollouts.
"""

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clearseek.config.errors import RunError
from clearseek.config.recipe import RlStage
from clearseek.engine.request import Sampling
from clearseek.engine.rollout import Group, describe, rewards
from clearseek.model.decoder import Decoder
from clearseek.model.kernels.library import why_not_fit
from clearseek.tasks.problem import Problem
from clearseek.text.packing import Rows
from clearseek.text.tokenizer import Tokenizer
from clearseek.trace.problem_source import ProblemSource
from clearseek.train import exactness
from clearseek.train.advantages import ADVANTAGES, has_signal
from clearseek.train.context import StageContext
from clearseek.train.corpus import build_rows, kept_samples_path
from clearseek.train.flops import forward_flops, training_flops
from clearseek.train.intake import write_rows
from clearseek.train.keeper import StateKeeper
from clearseek.train.learner import Learner, MicroBatch, micro_batches
from clearseek.train.parallel import on_first, roll_out_together, world
from clearseek.train.policy_batch import pack_groups
from clearseek.train.policy_objective import Measures, policy_objective
from clearseek.train.rollouts import Rollout
from clearseek.train.schedule import rate_at
from clearseek.train.state import load_model_state
from clearseek.train.supervised import mean_loss, rows_of_step


@dataclass
class Pool:
    """What a stage remembers of the problems it has solved: which to pass over, and answers worth keeping."""

    retired: set[str] = field(default_factory=set)
    solved: list[dict[str, str]] = field(default_factory=list)

    def add(self, groups: list[Group], pass_rate: float | None) -> None:
        """Retire problems solved often enough; their first right answer joins the rejection-sampling pool."""
        for group in groups:
            if pass_rate is None or group.pass_rate < pass_rate:
                continue
            self.retired.add(group.problem.id)
            right = next(item for item in group.judged if item.verdict == "correct")
            self.solved.append(
                {"prompt": group.problem.prompt, "thought": right.thought, "answer": right.answer or ""}
            )


class PolicyTrainer:
    """One reinforcement-learning stage on one model."""

    def __init__(self, context: StageContext, stage: RlStage, model: Decoder, tokenizer: Tokenizer) -> None:
        self.context, self.stage, self.model, self.tokenizer = context, stage, model, tokenizer
        tokens = stage.steps * stage.problems_per_step * stage.group_size * stage.max_completion_tokens
        self.is_exact = context.is_exact(stage, model.config)
        self.learner = Learner(
            model,
            stage,
            context.dtype,
            context.compile_for(model, tokens, stage.sequence_length),
            context.adapter,
            self.is_exact,
        )
        self.engine = context.open_sampler(self.learner.whole_model(), tokenizer)
        self.source = ProblemSource(stage.problems, context.recipe.seed, context.stage)
        self.sampling = Sampling(stage.temperature, 1.0, stage.max_completion_tokens)
        self.reference = self._freeze() if stage.kl_weight else None
        self.supervised_rows = self._supervised_rows()
        self.pool = Pool()
        self.keeper = StateKeeper(context, stage, self.learner, stage.steps, self._others)
        self.totals: dict[str, float] = {"tokens": 0, "flops": 0.0}

    def _others(self) -> dict[str, Tensor] | None:
        return None if self.reference is None else self.reference.trained.state_dict()

    def _freeze(self) -> Learner:
        """A copy of the policy that the KL term holds on to; of an adapted one, of its adapter alone."""
        if self.learner.adapter is not None:
            frozen = self.learner.adapter.frozen()
            return Learner(self.model, self.stage, self.context.dtype, False, frozen, self.is_exact)
        policy, compiled = copy.deepcopy(self.learner.whole_model()), self.learner.is_compiled
        return Learner(
            policy.requires_grad_(False), self.stage, self.context.dtype, compiled, exact=self.is_exact
        )

    def _supervised_rows(self) -> Rows | None:
        if not self.stage.sft_data:
            return None
        return build_rows(
            self.context, self.stage.sft_data, self.tokenizer, self.stage.sequence_length, "best_fit"
        )

    def run(self) -> dict[str, float]:
        """All steps, from where the stage goes on if it was begun; returns totals."""
        stage, context = self.stage, self.context
        context.progress.note(f"{context.stage}: {self._exactness()}")
        for step in range(self._resume(), stage.steps):
            if self.source.is_used_up(self.pool.retired):
                reason = {"reason": "every problem is solved and retired"} | self.keeper.hashed(step, True)
                context.record("stopped_early", step=step, **reason)
                context.progress.note(f"every problem is solved after {step} of {stage.steps} steps")
                break
            started = time.perf_counter()
            rollout = self.rollout(step)
            numbers = self._describe(rollout) | self.update(step, rollout.kept())
            sampled = numbers["completion_tokens"] * numbers["groups"] * stage.group_size
            self._count(int(sampled))
            done = step + 1
            hashed = self.keeper.hashed(done, done == stage.steps)
            context.record("step", step=done, **numbers, **hashed, **context.keep_rollout(step, rollout))
            rate = sampled / (time.perf_counter() - started)
            context.progress.step(done, stage.steps, reward=numbers["reward"], tokens_per_second=rate)
            if stage.evaluate_every and done % stage.evaluate_every == 0 and done < stage.steps:
                context.examine(self.learner.whole_model(), self.tokenizer, done)
            self._save(done)
        return self.totals

    def _exactness(self) -> str:
        """In one line: whether it learns from the very bits that it sampled with, and what that costs."""
        if self.stage.engine is not None:
            hindrance: str | None = "vLLM samples"
        else:
            hindrance = why_not_fit(self.context.dtype, self.model.embedding.weight)
        return exactness.describe(self.is_exact, self.model.config, hindrance)

    def rollout(self, step: int) -> Rollout:
        """What a step (from 0) learns from: sampled now, or as it is stored when a step is replayed."""
        stored = self.context.stored_rollout(step)
        if stored is None:
            return self.sample(step)
        self.pool.add(stored.groups, self.stage.retire_pass_rate)
        return stored

    def sample(self, step: int) -> Rollout:
        """Groups to learn from and groups that tell nothing; drawn again up to `max_refill_rounds` times."""
        stage = self.stage
        sampled = Rollout([], [])
        if step:
            self.engine.load_weights(self.learner.whole_model())
        for refill in range(stage.max_refill_rounds + 1):
            missing = stage.problems_per_step - sum(sampled.learnt)
            turn = step * (stage.max_refill_rounds + 1) + refill
            problems = self.source.draw(turn, stage.problems_per_step, self.pool.retired)[:missing]
            if not problems:
                break
            problems = self.context.asked(problems)
            groups = roll_out_together(
                self.engine,
                self.tokenizer,
                problems,
                stage.group_size,
                self.sampling,
                self._key(step, refill),
                self.context.verifiers,
            )
            self.pool.add(groups, stage.retire_pass_rate)
            signal = has_signal(rewards(groups, stage.language_consistency_weight))
            sampled.groups.extend(groups)
            sampled.learnt.extend(bool(tells) or not stage.drop_zero_variance for tells in signal)
            if not stage.drop_zero_variance or sum(sampled.learnt) >= stage.problems_per_step:
                break
        self._check_versions(step, sampled.groups)
        return sampled

    def _check_versions(self, step: int, groups: list[Group]) -> None:
        """What an update learns from is one policy's."""
        done = [item.completion for group in groups for item in group.judged]
        versions = {version for one in done for _, version in one.drawn_by or ((0, one.weights_version),)}
        if len(versions) > 1:
            raise RunError(
                f"stage {self.context.stage}, step {step + 1}: its completions were drawn by weights of versions "
                f"{', '.join(map(str, sorted(versions)))}, and an update learns from one policy's; let nobody else "
                "change the engine's weights, and run the same command again"
            )

    def _describe(self, rollout: Rollout) -> dict[str, Any]:
        """What the ledger says of everything sampled, whether it is learnt from or not."""
        groups, dropped = rollout.kept(), rollout.dropped()
        values = rewards(groups + dropped, self.stage.language_consistency_weight)
        counted = values[~np.isnan(values)]
        return describe(groups + dropped) | {
            "reward": float(counted.mean()) if counted.size else float("nan"),
            "dropped": len(dropped),
            "refilled": max(len(groups) + len(dropped) - self.stage.problems_per_step, 0),
            "retired": len(self.pool.retired),
        }

    def _key(self, step: int, refill: int) -> Callable[[Problem], int]:
        return lambda problem: self.context.key(step, refill, problem.id)

    def update(self, step: int, groups: list[Group]) -> dict[str, Any]:
        """The gradient steps on one sampled batch; a batch without signal changes nothing."""
        stage = self.stage
        share = rate_at(stage.schedule, step, stage.steps)
        values = rewards(groups, stage.language_consistency_weight)
        numbers: dict[str, Any] = {
            "learning_rate": stage.optimizer.learning_rate * share,
            "loss": 0.0, "grad_norm": 0.0, "tokens": 0, "kl": 0.0, "clip_fraction": 0.0, "mismatch": 0.0,
            "mismatch_mean": 0.0, "mismatch_tokens": 0,
        }  # fmt: skip
        if np.isnan(values).all():
            return numbers
        advantages, depth = ADVANTAGES[stage.advantage](values), self.learner.mtp_depth
        batch = pack_groups(groups, advantages, values, stage, self.tokenizer.pad_id, depth)
        batches = batch.micro_batches(
            stage.micro_batch_rows, self.context.device, fill=self.learner.is_compiled
        )
        measures = Measures()
        if stage.updates_per_batch > 1 or stage.kl_weight:
            self._remember(batches)
        for _ in range(stage.updates_per_batch):
            result = self.learner.step(
                [*batches, *self._supervised_batches(step)],
                lambda log_probs, one: self._loss(log_probs, one, measures),
                share,
                len(batch.rows),
                stage.temperature,
            )
        measures = measures.over_ranks()
        numbers |= {"loss": result.loss, "grad_norm": result.grad_norm, "tokens": batch.num_tokens}
        numbers |= measures.as_numbers(batch.num_tokens * stage.updates_per_batch)
        self._check_mismatch(step, numbers)
        self._refresh_reference(step)
        return numbers

    def _check_mismatch(self, step: int, numbers: dict[str, Any]) -> None:
        """Law 1: sampler and trainer must see the same policy, at every token and on the average."""
        largest, mean, stage = numbers["mismatch"], numbers["mismatch_mean"], self.stage
        if largest > stage.max_mismatch or mean > stage.max_mean_mismatch:
            raise RunError(
                f"stage {self.context.stage}, step {step + 1}: sampler and trainer differ by up to "
                f"{largest:.3f} and by {mean:.4f} on average in a log-probability, above max_mismatch "
                f"({stage.max_mismatch}) or max_mean_mismatch ({stage.max_mean_mismatch}); "
                'set dtype = "float32" in the recipe'
            )

    def _loss(self, log_probs: Tensor, batch: MicroBatch, measures: Measures) -> Tensor:
        """Policy loss and KL of policy rows; cross-entropy of supervised ones."""
        if "advantages" in batch.extras:
            return policy_objective(self.stage, log_probs, batch.extras, measures)
        counted = float(batch.extras["num_counted"].max())
        return self.stage.sft_weight * mean_loss(counted)(log_probs, batch)

    @torch.no_grad()
    def _remember(self, batches: list[MicroBatch]) -> None:
        """Store what the sampling policy and the reference think of every token."""
        for batch in batches:
            if self.stage.updates_per_batch > 1:
                batch.extras["old_log_probs"], _ = self.learner.log_probs(batch, 0, self.stage.temperature)
            if self.reference is not None:
                batch.extras["reference_log_probs"], _ = self.reference.log_probs(
                    batch, 0, self.stage.temperature
                )

    def _refresh_reference(self, step: int) -> None:
        if self.reference is not None and (step + 1) % self.stage.reference_refresh_steps == 0:
            load_model_state(self.reference.trained, self.learner.trained.state_dict())

    def _supervised_batches(self, step: int) -> list[MicroBatch]:
        if self.supervised_rows is None:
            return []
        size = self.stage.micro_batch_rows
        rows = rows_of_step(
            self.supervised_rows, step, size, self.context.recipe.seed, f"{self.context.stage}/sft"
        )
        (batch,) = micro_batches(rows, world().largest_share(size), self.context.device)
        batch.extras["num_counted"] = torch.full_like(batch.target_weights, max(rows.num_counted_tokens, 1))
        return [batch]

    def _count(self, sampled_tokens: int) -> None:
        config, length = self.model.config, self.stage.sequence_length
        self.totals["tokens"] += sampled_tokens
        self.totals["flops"] += forward_flops(config, sampled_tokens, length) + training_flops(
            config, sampled_tokens, length, self.learner.mtp_depth > 0
        )

    def _fingerprint(self) -> str:
        return f"{self.context.recipe.seed}/{self.stage.problems.model_dump_json()}"

    def _resume(self) -> int:
        resumed = self.keeper.resume(self._fingerprint())
        if resumed is None:
            return 0
        point, others = resumed
        if self.reference is not None:
            load_model_state(self.reference.trained, others)
        self.pool = Pool(set(point.extra["retired"]), point.extra["solved"])
        self.totals = point.totals
        return point.step

    def _save(self, step: int) -> None:
        extra = {"retired": sorted(self.pool.retired), "solved": self.pool.solved}
        self.keeper.save(step, self._fingerprint(), self.totals, extra)

    def leave(self) -> None:
        """Write the solved problems' answers where a reject stage finds them."""
        path = kept_samples_path(self.context.run_dir, self.context.stage)
        on_first("the solved problems' answers", lambda: write_rows(path, self.pool.solved))
