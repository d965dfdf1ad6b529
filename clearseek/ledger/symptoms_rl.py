"""Why a reward is flat: what can be wrong with a stage of reinforcement learning.

Each symptom looks at the last quarter of the stage (at least five steps), because that is what to change
next; mismatch, verifier errors and numbers that are not finite count wherever they happened.
"""

import math
from collections.abc import Iterator

from clearseek.ledger.finding import Finding
from clearseek.ledger.lines import number
from clearseek.ledger.record import Record, StageRecord, judged, table, total
from clearseek.ledger.symptoms_training import expert_collapse, last_part, mean, not_finite, peak, rate_advice

MIN_STEPS = 5
ALL_WRONG, ALL_CORRECT = 0.5, 0.75
TRUNCATED, UNPARSEABLE = 0.2, 0.3
ENTROPY, SOLVED = 0.02, 0.9
LANGUAGE = 0.9
MISMATCH = 0.5  # where the stage's config states no max_mismatch
TINY_RATE, TINY_RATE_BIG_MODEL, BIG_MODEL = 1e-5, 1e-7, 1e8
TINY_GRADIENT = 1e-6


def rl_symptoms(stage: StageRecord) -> list[Finding]:
    """Findings of one stage."""
    findings = [*not_finite(stage), *_mismatch(stage), *_verifier_errors(stage), *expert_collapse(stage)]
    if stage.finished and 0 < len(stage.steps) < MIN_STEPS:
        findings.append(_too_few(stage))
    if len(stage.steps) >= MIN_STEPS:
        recent = stage.steps[-max(5, len(stage.steps) // 4) :]
        findings += [
            *_groups(stage, recent),
            *_form(stage, recent),
            *_language(stage),
            *_entropy(stage, recent),
        ]
        findings += [*_no_gradient(stage, recent), *_reward(stage)]
    return findings


def _too_few(stage: StageRecord) -> Finding:
    reward = number(stage.steps[-1].get("reward"))
    return Finding(
        "note",
        f"{stage.name}: too few steps to judge",
        f"{len(stage.steps)} steps, where {MIN_STEPS} are needed; the last one's reward is {reward}",
        f"raise stages.{stage.name}.steps{_now(stage, 'steps')}",
    )


def _groups(stage: StageRecord, recent: list[Record]) -> Iterator[Finding]:
    wrong, correct = total(recent, "groups_all_wrong"), total(recent, "groups_all_correct")
    groups = max(total(recent, "groups"), wrong + correct)
    if groups and wrong / groups >= ALL_WRONG:
        yield Finding(
            "warning",
            f"{stage.name}: most groups are all wrong, so there is nothing to learn from",
            f"{wrong:.0f} of {groups:.0f} groups in the last {len(recent)} steps",
            f"make stages.{stage.name}.problems.levels easier, give the sft stage before it more epochs, "
            f"or raise stages.{stage.name}.group_size{_now(stage, 'group_size')}",
        )
    if groups and correct / groups >= ALL_CORRECT:
        yield Finding(
            "note",
            f"{stage.name}: most groups are all correct, so there is little left to learn",
            f"{correct:.0f} of {groups:.0f} groups in the last {len(recent)} steps",
            f"add harder stages.{stage.name}.problems.levels, set stages.{stage.name}.retire_pass_rate"
            f"{_now(stage, 'retire_pass_rate')}, or end the stage sooner (stages.{stage.name}.steps)",
        )


def _form(stage: StageRecord, recent: list[Record]) -> Iterator[Finding]:
    answers, truncated = judged(recent), total(recent, "truncated")
    if not answers:
        return
    if truncated / answers >= TRUNCATED:
        yield Finding(
            "warning",
            f"{stage.name}: many answers are cut short before they end",
            f"{truncated / answers:.0%} of {answers:.0f} completions in the last {len(recent)} steps",
            f"raise stages.{stage.name}.max_completion_tokens{_now(stage, 'max_completion_tokens')}; "
            "if answers never end, train the sft stage before it longer",
        )
    unread = max(0.0, total(recent, "unparseable") - truncated) / answers
    if unread >= UNPARSEABLE:
        never = unread >= 0.95
        yield Finding(
            "error" if never else "warning",
            f"{stage.name}: the format is {'never' if never else 'often not'} hit, so answers cannot be read",
            f"{unread:.0%} of {answers:.0f} completions in the last {len(recent)} steps can't be read",
            "train an sft stage on worked answers in this format first (more count or epochs), and see that "
            "the problems' `verifier` reads what the examples write",
        )


def _language(stage: StageRecord) -> Iterator[Finding]:
    recent = [value for _, value in last_part(stage.series("language_consistency")) if math.isfinite(value)]
    if recent and mean(recent) < LANGUAGE:
        yield Finding(
            "warning",
            f"{stage.name}: answers mix languages",
            f"{mean(recent):.1%} of the words are in the language asked, over the last {len(recent)} steps",
            f"raise stages.{stage.name}.language_consistency_weight"
            f"{_now(stage, 'language_consistency_weight')}, "
            "or give the sft stage before it more examples in the weaker languages",
        )


def _entropy(stage: StageRecord, recent: list[Record]) -> Iterator[Finding]:
    entropies = [value for _, value in last_part(stage.series("entropy")) if math.isfinite(value)]
    solved = _accuracy(recent)
    if not entropies or mean(entropies) >= ENTROPY or solved >= SOLVED:
        return
    yield Finding(
        "warning",
        f"{stage.name}: the entropy is gone, so nothing new is tried",
        f"mean entropy {mean(entropies):.4f} nats over the last {len(entropies)} steps, {solved:.0%} right",
        f"{rate_advice(stage, lower=True)}, sample at stages.{stage.name}.temperature = 1.0, "
        f"or raise clip_high{_now(stage, 'clip_high')}",
    )


def _no_gradient(stage: StageRecord, recent: list[Record]) -> Iterator[Finding]:
    norms = [value for _, value in last_part(stage.series("grad_norm")) if math.isfinite(value)]
    if norms and max(norms) < TINY_GRADIENT:
        yield Finding(
            "error",
            f"{stage.name}: the gradient is zero",
            f"grad_norm at most {max(norms):.2g} over the last {len(norms)} steps",
            "if groups are all wrong or all correct, see there; else no sampled answer counts in the loss: "
            f"check stages.{stage.name}.max_completion_tokens and the verifier",
        )


def _reward(stage: StageRecord) -> Iterator[Finding]:
    rewards = [value for _, value in stage.series("reward") if math.isfinite(value)]
    if len(rewards) < 12:
        return
    size = max(3, len(rewards) // 4)
    first, last = rewards[:size], rewards[-size:]
    change, noise = mean(last) - mean(first), math.hypot(_error(first), _error(last))
    seen = f"mean reward {mean(first):.3f} in the first {size} steps, {mean(last):.3f} in the last {size}"
    rate = peak(stage, "learning_rate")
    if change < -max(0.05, 3 * noise):
        advice = f"{rate_advice(stage, lower=True)}, or hold the model nearer to its start with kl_weight"
        yield Finding("error", f"{stage.name}: the reward falls", seen, advice + _now(stage, "kl_weight"))
    elif change < max(0.01, noise) and _accuracy(stage.steps[-size:]) < SOLVED:
        tiny = rate is not None and rate < _tiny_rate(stage)
        seen += f"; learning rate at most {rate:.3g}" if rate is not None else ""
        yield Finding(
            "warning",
            f"{stage.name}: the reward is flat{', and the learning rate is very small' if tiny else ''}",
            seen,
            f"{rate_advice(stage)}{' tenfold or more' if tiny else ''}; else look at the other findings "
            f"first, then raise stages.{stage.name}.steps",
        )


def _mismatch(stage: StageRecord) -> Iterator[Finding]:
    bound = number(stage.config.get("max_mismatch")) or MISMATCH
    above = [(step, value) for step, value in stage.series("mismatch") if not value <= bound]
    if above:
        step, value = max(above, key=lambda pair: (pair[1] != pair[1], pair[1]))
        yield Finding(
            "error",
            f"{stage.name}: sampler and trainer disagree about the log-probabilities",
            f"largest difference {value:.3g} at step {step:.0f}, the bound is {bound:g}",
            "set dtype = 'float32'; if it stays, engine and trainer run different code or weights, which is "
            f"a bug to report; stages.{stage.name}.max_mismatch only hides it",
        )


def _verifier_errors(stage: StageRecord) -> Iterator[Finding]:
    errors, answers = total(stage.steps, "error"), judged(stage.steps)
    if errors:
        share = errors / answers
        yield Finding(
            "error" if share >= 0.1 else "warning",
            f"{stage.name}: the verifier fails on answers",
            f"{errors:.0f} of {answers:.0f} completions ({share:.1%}); left out, not counted as wrong",
            "try the problems' `verifier` with `clearseek verify`; your own function must return in time and "
            "must not raise",
        )


def _accuracy(steps: list[Record]) -> float:
    answers = judged(steps)
    return total(steps, "correct") / answers if answers else 0.0


def _error(numbers: list[float]) -> float:
    """The standard error of the mean."""
    middle = mean(numbers)
    variance = sum((value - middle) ** 2 for value in numbers) / max(1, len(numbers) - 1)
    return math.sqrt(variance / len(numbers))


def _tiny_rate(stage: StageRecord) -> float:
    size = number(table(stage.started.get("parameters")).get("total")) or 0
    return TINY_RATE_BIG_MODEL if size >= BIG_MODEL else TINY_RATE


def _now(stage: StageRecord, key: str) -> str:
    value = stage.config.get(key)
    return "" if value is None else f" (now {value})"
