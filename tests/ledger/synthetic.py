"""A made-up run of the whole recipe, written as the trainer writes it: what the reports are tested on.

`python tests/ledger/synthetic.py DIRECTORY` writes one to look at.
"""

import hashlib
import math
import random
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearseek.ledger.lines import encode_line
from clearseek.ledger.log import Ledger

TASKS = ("arithmetic", "calendar", "comparison", "countdown", "digits", "sequences", "units", "word_problems")
LANGUAGES = ("ko", "zh", "en")
SHIFTS = (-0.03, 0.01, 0.02)
Change = Callable[[str, str, dict[str, Any]], dict[str, Any] | None]


@dataclass
class Plan:
    """One stage of the made-up run; `skill` is its held-out accuracy before and after."""

    name: str
    kind: str
    steps: int = 0
    seconds: float = 1.0
    skill: tuple[float, float] = (0.0, 0.0)
    loss: tuple[float, float] = (0.0, 0.0)
    parameters: tuple[int, int] = (1_424_000, 913_000)
    parents: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)


STUDENT = (412_000, 412_000)
RL = {"max_mismatch": 0.5, "group_size": 8, "optimizer": {"learning_rate": 2e-4}}
PLANS = (
    Plan("tokenizer", "tokenizer", seconds=3.2),
    Plan("pretrain", "pretrain", 300, 214.0, (0.0, 0.07), (6.4, 0.92), parents=("tokenizer",)),
    Plan("cold-start", "sft", 80, 41.0, (0.07, 0.41), (0.9, 0.41), parents=("pretrain",)),
    Plan("rl-reasoning", "rl", 40, 88.0, (0.41, 0.79), parents=("cold-start",), config=RL),
    Plan("rejection", "reject", seconds=12.0, parents=("rl-reasoning",)),
    Plan("sft", "sft", 90, 44.0, (0.07, 0.81), (0.88, 0.21), parents=("pretrain", "rejection")),
    Plan("rl-all", "rl", 30, 66.0, (0.81, 0.88), parents=("sft",), config=RL),
    Plan("student", "distill", 110, 32.0, (0.0, 0.83), (6.1, 0.3), STUDENT, ("rl-all",)),
    Plan("student-rl", "rl", 30, 31.0, (0.05, 0.29), parameters=STUDENT, parents=("tokenizer",), config=RL),
    Plan("final", "eval", seconds=6.0, skill=(0.0, 0.88), parents=("rl-all",)),
)

PROBLEMS = (
    (
        "arithmetic",
        "en",
        "Work out 17 + 5 × (9 − 4).",
        "42",
        "5 × (9 − 4) = 5 × 5 = 25. 17 + 25 = 42. Check: 42 − 25 = 17, right.",
    ),
    (
        "word_problems",
        "ko",
        "사과가 한 상자에 24개씩 3상자 있습니다. 17개를 먹으면 몇 개가 남습니까?",
        "55",
        "한 상자에 24개, 3상자면 24 × 3 = 72. 17개를 먹었으니 72 − 17 = 55. 검산: 55 + 17 = 72, 맞다.",
    ),
    (
        "calendar",
        "zh",
        "2026年11月22日是星期日。再过45天是星期几？",
        "星期三",
        "45 ÷ 7 = 6 余 3。星期日之后第 3 天：星期一、星期二、星期三。所以是星期三。",
    ),
    (
        "countdown",
        "en",
        "Use 3, 7, 8 and 25 once each to make 92.",
        "25 * (7 - 3) - 8",
        "25 × 3 = 75, 75 + 8 = 83, 83 + 7 = 90, no. 25 × 4 − 8 = 92, which needs a 4: 7 − 3 = 4. "
        "25 × (7 − 3) = 100, 100 − 8 = 92. Yes.",
    ),
    (
        "comparison",
        "ko",
        "작은 수부터 늘어놓으세요: 503, 350, 535, 305",
        "305, 350, 503, 535",
        "백의 자리가 3인 수: 350, 305. 305 < 350. 백의 자리가 5인 수: 503, 535. 503 < 535.",
    ),
    (
        "sequences",
        "zh",
        "找规律：2, 6, 12, 20, 30, ?",
        "42",
        "相邻的差是 4, 6, 8, 10，下一个差是 12。30 + 12 = 42。",
    ),
)
GARBLE = (" 7 7 7 =", "는 는 3 + 3", "，，是 是 是", " the the 12 =", "수는 수는", " 9 < 9 < 9")


def write_run(
    directory: Path, until: int | None = None, change: Change | None = None, sessions: int = 1
) -> Path:
    """Writes a run; `until` keeps only so many ledger lines, `change` may alter or drop (None) a record."""
    directory.mkdir(parents=True, exist_ok=True)
    for name in ("ledger.jsonl", "samples.jsonl", "timings.jsonl"):
        (directory / name).unlink(missing_ok=True)
    writer = _Writer(directory, until, change, sessions)
    try:
        writer.everything()
    except _Killed:
        pass
    finally:
        writer.close()
    return directory


class _Killed(Exception):
    pass


class _Writer:
    def __init__(self, directory: Path, until: int | None, change: Change | None, sessions: int) -> None:
        self.ledger, self.samples = Ledger(directory / "ledger.jsonl"), Ledger(directory / "samples.jsonl")
        self.timings = (directory / "timings.jsonl").open("wb")
        self.until, self.change, self.sessions = until, change, sessions
        self.random, self.time, self.session = random.Random(7), 1_795_000_000.0, 1

    def close(self) -> None:
        self.ledger.close()
        self.samples.close()
        self.timings.close()

    def record(self, kind: str, stage: str | None = None, **fields: Any) -> None:
        changed = self.change(kind, stage or "", fields) if self.change else fields
        if changed is None:
            return
        if self.until is not None and len(self.ledger) >= self.until:
            raise _Killed
        self.ledger.append(kind, stage, **changed)

    def clock(self, kind: str, stage: str | None, seconds: float, **fields: Any) -> None:
        self.time += seconds if kind != "stage" else 0
        line = {"kind": kind} | ({"stage": stage} if stage else {}) | fields
        measured = {
            "wall_seconds": seconds,
            "cpu_seconds": seconds * 1.93,
            "peak_memory_bytes": 1_310_000_000,
        }
        self.timings.write(encode_line(line | measured | {"time": self.time, "session": self.session}))

    def open_session(self) -> None:
        machine = {
            "processor": "Two-core test machine",
            "cores": 2,
            "memory_bytes": 8 << 30,
            "system": "Linux x86_64",
        }
        self.clock("session", None, 2.5, machine=machine)

    def everything(self) -> None:
        self.open_session()
        versions = {"python": "3.11.7", "torch": "2.13.0", "clearseek": "0.1.0"}
        self.record(
            "run", recipe="r1-mini", recipe_sha256=_sha("recipe"), seed=1, versions=versions, device="cpu",
            dtype="bfloat16", dtype_reason="the processor multiplies it about five times faster", threads=2,
            result="rl-all",
        )  # fmt: skip
        for number, plan in enumerate(PLANS):
            if number and number < self.sessions:
                self.session += 1
                self.time += 3600
                self.open_session()
            self.stage(plan)
        self.record("run_finished")

    def stage(self, plan: Plan) -> None:
        total, active = plan.parameters
        has_model = plan.kind not in ("tokenizer",)
        self.record(
            "stage_started", plan.name, kind_of_stage=plan.kind, config={"kind": plan.kind} | plan.config,
            parents=[{"stage": parent, "sha256": _sha(parent)} for parent in plan.parents],
            parameters={"total": total, "active": active} if has_model else None,
        )  # fmt: skip
        self.clock("stage_started", plan.name, 0.0)
        if plan.kind in ("pretrain", "sft", "distill"):
            self.record(
                "data", plan.name, source="problems", fingerprint=_sha(plan.name + "data"), documents=24_000,
                tokens=2_400_000, train_held_out_overlap=0,
            )  # fmt: skip
        self.steps(plan)
        if plan.skill[1]:
            self.evaluate(plan, -1 if plan.steps else 0, plan.skill[1])
        if plan.steps:
            self.record("checkpoint", plan.name, step=plan.steps, sha256=_sha(plan.name))
        tokens = plan.steps * (8192 if plan.kind != "rl" else 5_200)
        flops = tokens * 6.0 * active
        outputs = [{"name": "model", "path": f"checkpoints/{plan.name}", "sha256": _sha(plan.name)}]
        self.record(
            "stage_finished", plan.name, outputs=outputs, steps=plan.steps, tokens=tokens, flops=flops
        )
        self.clock("stage", plan.name, plan.seconds, tokens=tokens, flops=flops)

    def steps(self, plan: Plan) -> None:
        for step in range(1, plan.steps + 1):
            fields = self.rl_step(plan, step) if plan.kind == "rl" else self.loss_step(plan, step)
            self.record("step", plan.name, step=step, **fields)
            flops = fields["tokens"] * 6.0 * plan.parameters[1]
            self.clock(
                "step", plan.name, plan.seconds / plan.steps, step=step, tokens=fields["tokens"], flops=flops
            )
            if plan.kind == "rl" and step % 10 == 0 and step < plan.steps:
                self.evaluate(plan, step, _skill(plan, step))

    def loss_step(self, plan: Plan, step: int) -> dict[str, Any]:
        first, last = plan.loss
        loss = last + (first - last) * math.exp(-5 * step / plan.steps) + self.random.gauss(0, 0.02)
        rate = 3e-3 * min(1.0, step / 10, 2 * (1 - step / (plan.steps + 1)))
        experts = {
            "balance_loss": 1.02,
            "mtp_loss": loss * 1.2,
            "expert_load_max": 1.4 + self.random.random() / 5,
        }
        extra = experts if plan.kind == "pretrain" else {}
        return {
            "loss": loss,
            "learning_rate": rate,
            "grad_norm": 0.4 + self.random.random() / 5,
            "tokens": 8192,
        } | extra

    def rl_step(self, plan: Plan, step: int) -> dict[str, Any]:
        skill = min(1.0, max(0.0, _skill(plan, step) + self.random.gauss(0, 0.02)))
        correct, truncated, unparseable = round(256 * skill), 6, 4
        groups_right = round(32 * skill**8)
        fields = {
            "loss": self.random.gauss(0, 0.01), "learning_rate": 2e-4,
            "grad_norm": 0.3 + self.random.random() / 4,
            "tokens": 5200, "reward": correct / 256, "correct": correct, "wrong": 256 - correct - unparseable,
            "unparseable": unparseable, "error": 0, "truncated": truncated, "groups": 32,
            "groups_all_correct": groups_right, "groups_all_wrong": round(32 * (1 - skill) ** 8),
            "refilled": 4,
            "retired": step // 4, "entropy": 0.42 - 0.2 * step / plan.steps, "kl": 0.0, "clip_fraction": 0.0,
            "completion_tokens": 18 + 12 * skill + self.random.gauss(0, 0.6),
            "language_consistency": 0.93 + 0.065 * step / plan.steps,
        }  # fmt: skip
        return fields | ({"mismatch": 3.1e-6} if step == 1 else {})

    def evaluate(self, plan: Plan, step: int, skill: float) -> None:
        half = 1.96 * math.sqrt(skill * (1 - skill) / 400)
        by_task, by_task_language = {}, {}
        for index, task in enumerate(TASKS):
            score = min(1.0, max(0.0, skill + 0.12 * math.sin(2.1 * index) * (1 - skill + 0.2)))
            languages = {
                name: min(1.0, max(0.0, score + shift)) for name, shift in zip(LANGUAGES, SHIFTS, strict=True)
            }
            by_task[task] = score
            by_task_language[task] = languages
        by_language = {name: skill + shift for name, shift in zip(LANGUAGES, SHIFTS, strict=True)}
        self.record(
            "eval", plan.name, step=step, pass_at_1=skill, n=400,
            ci95=[max(0.0, skill - half), min(1.0, skill + half)],
            samples=1, by_task=by_task, by_language=by_language, by_task_language=by_task_language,
            language_consistency=0.95 + 0.045 * skill,
            mean_completion_tokens=14 + 14 * skill, truncated=9, errors=0,
        )  # fmt: skip
        self.clock("eval", plan.name, 1.5, step=step)
        for index, problem in enumerate(PROBLEMS):
            self.sample(plan, step, skill, index, problem)

    def sample(self, plan: Plan, step: int, skill: float, index: int, problem: tuple[str, ...]) -> None:
        family, language, prompt, answer, thought = problem
        luck = random.Random(f"{index}{round(skill, 1)}").random()
        if skill < 0.1:
            completion, verdict = GARBLE[index] * 9, "unparseable"
        elif luck > skill + 0.12:
            wrong = thought[: len(thought) // 2]
            completion, verdict = f"{wrong}</think>{answer[:-1]}9<｜end▁of▁sentence｜>", "wrong"
        else:
            completion, verdict = f"{thought}</think>{answer}<｜end▁of▁sentence｜>", "correct"
        self.samples.append(
            "sample", plan.name, step=step, problem_id=_sha(prompt)[:16], family=family, language=language,
            prompt=prompt, answer=answer, completion=completion, verdict=verdict,
        )  # fmt: skip


def _skill(plan: Plan, step: int) -> float:
    first, last = plan.skill
    return last + (first - last) * math.exp(-4 * step / plan.steps)


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


if __name__ == "__main__":
    write_run(Path(sys.argv[1]))
