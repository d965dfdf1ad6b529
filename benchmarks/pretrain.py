"""Training speed beside transformers: the same exported model, both training in turn on the same batches.

Every step gets a batch of its own and a turn lasts a second or more, as training goes: a batch seen again would hide
what new shapes cost, a single step what the other side left in the caches. Prints one JSON object: for every size and
kind of model tokens per second of both, their ratio (median of the rounds), and the share of the machine's measured
bf16 matrix-product peak that our useful arithmetic reaches. Ours trains in bf16, and once more with linear layers in
int8 as the recipes pretrain. transformers gets the better of fp32 and bf16 autocast and the fused AdamW, once with the
attention it comes with (sdpa) and once with its eager one, sometimes faster on a CPU.

    make bench-pretrain            # or: .venv-peers/bin/python benchmarks/pretrain.py --sizes 1m,10m
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # both sides, as `clearseek` does: read when torch is loaded

import torch

from clearseek.config.model import ModelConfig
from clearseek.config.recipe import DataSource, PretrainStage
from clearseek.model.checkpoint import save_model
from clearseek.model.decoder import Decoder
from clearseek.model.kernels.library import fits
from clearseek.train.flops import num_parameters, training_flops
from clearseek.train.learner import Learner, MicroBatch
from clearseek.train.supervised import mean_loss

PEER_SECONDS = 300.0
WARM_UP = 2  # rounds that don't count
SETTINGS = {  # of transformers
    f"{dtype}, {attention}": (dtype, attention)
    for attention in ("sdpa", "eager")
    for dtype in ("fp32", "bf16 autocast")
}
TURN_SECONDS = 1.0  # a side trains on for so long, one step at least, before it is the other's turn


@dataclass(frozen=True)
class Size:
    """One model size: its dense and its latent mixture-of-experts shape, and the batch it is trained with."""

    dense: dict[str, int]
    moe: dict[str, int]
    rows: int
    length: int


SIZES = {
    "1m": Size(
        dense={
            "vocab_size": 1024,
            "hidden_size": 128,
            "num_layers": 4,
            "num_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "intermediate_size": 384,
        },
        moe={
            "vocab_size": 1024,
            "hidden_size": 128,
            "num_layers": 4,
            "num_heads": 4,
            "intermediate_size": 384,
            "q_lora_rank": 64,
            "kv_lora_rank": 32,
            "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 16,
            "v_head_dim": 32,
            "num_routed_experts": 4,
            "num_shared_experts": 1,
            "num_experts_per_token": 2,
            "moe_intermediate_size": 64,
        },
        rows=32,
        length=128,
    ),
    "10m": Size(
        dense={
            "vocab_size": 4096,
            "hidden_size": 320,
            "num_layers": 8,
            "num_heads": 5,
            "num_key_value_heads": 5,
            "head_dim": 64,
            "intermediate_size": 832,
        },
        moe={
            "vocab_size": 4096,
            "hidden_size": 256,
            "num_layers": 6,
            "num_heads": 4,
            "intermediate_size": 768,
            "q_lora_rank": 128,
            "kv_lora_rank": 64,
            "qk_nope_head_dim": 48,
            "qk_rope_head_dim": 16,
            "v_head_dim": 64,
            "num_routed_experts": 8,
            "num_shared_experts": 1,
            "num_experts_per_token": 2,
            "moe_intermediate_size": 160,
        },
        rows=16,
        length=256,
    ),
    "100m": Size(
        dense={
            "vocab_size": 16384,
            "hidden_size": 768,
            "num_layers": 14,
            "num_heads": 12,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "intermediate_size": 2048,
        },
        moe={
            "vocab_size": 16384,
            "hidden_size": 512,
            "num_layers": 12,
            "num_heads": 8,
            "intermediate_size": 1536,
            "q_lora_rank": 256,
            "kv_lora_rank": 128,
            "qk_nope_head_dim": 48,
            "qk_rope_head_dim": 16,
            "v_head_dim": 64,
            "num_routed_experts": 8,
            "num_shared_experts": 1,
            "num_experts_per_token": 2,
            "moe_intermediate_size": 512,
        },
        rows=16,
        length=256,
    ),
}


def config_of(size: Size, kind: str) -> ModelConfig:
    """The model's shape; embeddings are tied, as small models have them."""
    family, shape = ("qwen3", size.dense) if kind == "dense" else ("deepseek_v3", size.moe)
    return ModelConfig.model_validate({"family": family, "tie_word_embeddings": True, **shape})


def matmul_peak(seconds: float = 1.0) -> float:
    """The best bf16 rate of a square product among three sizes, in FLOP/s."""
    best = 0.0
    for size in (512, 1024, 2048):
        a, b = torch.randn(size, size).bfloat16(), torch.randn(size, size).bfloat16()
        a @ b
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < seconds / 3:
            a @ b
            count += 1
        best = max(best, 2 * size**3 * count / (time.perf_counter() - started))
    return best


def batches(config: ModelConfig, size: Size) -> Iterator[torch.Tensor]:
    """Rows of random tokens [rows, length + 1] for step after step, the same ones on every side."""
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randint(0, config.vocab_size, (size.rows, size.length + 1), generator=generator)


def our_step(model: Decoder, tokens: Iterator[torch.Tensor], linear_dtype: str) -> Callable[[], None]:
    """One of our training steps in bf16 with AdamW: what `clearseek run` does, compiled where it would be."""
    told = {"kind": "pretrain", "start": "-", "data": [DataSource(path="-")], "tokens": 1}
    stage = PretrainStage.model_validate(told | {"linear_dtype": linear_dtype})
    compiled = not fits(torch.bfloat16, model.embedding.weight)
    learner = Learner(model, stage, torch.bfloat16, compile=compiled)

    def step() -> None:
        rows = next(tokens)
        batch = MicroBatch(rows, torch.ones_like(rows, dtype=torch.int32), torch.ones(rows.shape))
        learner.step([batch], mean_loss(float(batch.targets.numel())), 1.0, len(rows))

    return step


def their_step(
    directory: Path, tokens: Iterator[torch.Tensor], dtype: str, attention: str
) -> Callable[[], None]:
    """One training step of transformers' model of the same checkpoint."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation=attention
    )
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step() -> None:
        inputs = next(tokens)[:, :-1].contiguous()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16 autocast"):
            loss = model(input_ids=inputs, labels=inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class Peer:
    """transformers in a process of its own, so that nothing of ours changes how it runs; a turn per question."""

    def __init__(self, directory: Path, config: ModelConfig, size: Size, setting: tuple[str, str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.line, other = context.Pipe()
        self.process = context.Process(
            target=answer, args=(other, directory, config, size, setting), daemon=True
        )
        self.process.start()

    def seconds(self) -> float:
        """Wall time of a step there."""
        self.line.send("turn")
        if not self.line.poll(PEER_SECONDS):
            raise SystemExit(f"error: transformers took more than {PEER_SECONDS:.0f} s for one step")
        return float(self.line.recv())

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        self.process.join(PEER_SECONDS)


def answer(
    line: Connection, directory: Path, config: ModelConfig, size: Size, setting: tuple[str, str]
) -> None:
    """The peer's whole life: a turn for every question."""
    step = their_step(directory, batches(config, size), *setting)
    while line.recv():
        line.send(seconds_of(step))


def seconds_of(step: Callable[[], None]) -> float:
    """Wall time of a step, the mean over one turn."""
    started, count = time.perf_counter(), 0
    while not count or time.perf_counter() - started < TURN_SECONDS:
        step()
        count += 1
    return (time.perf_counter() - started) / count


@dataclass(frozen=True)
class Turn:
    """Seconds of a step on every side, one turn after the other."""

    bf16: float
    int8: float
    theirs: float


def compare(size: Size, kind: str, rounds: int, peak: float, alone: bool) -> dict[str, Any]:
    """Ours beside transformers, turn by turn: its better dtype, with either attention; or ours alone.

    One setting of transformers after the other, so that one model of its own is all that memory must hold.
    """
    config = config_of(size, kind)
    turns: dict[str, list[Turn]] = {}
    with tempfile.TemporaryDirectory() as folder:
        sides = []
        for linear_dtype in ("auto", "int8"):
            model = Decoder(config)
            model.initialise(torch.Generator().manual_seed(0))
            save_model(model, Path(folder), bos_id=0, eos_id=1, pad_id=2)
            sides.append(our_step(model, batches(config, size), linear_dtype))
        for name, setting in SETTINGS.items():
            peer = None if alone else Peer(Path(folder), config, size, setting)
            taken = [
                Turn(*map(seconds_of, sides), peer.seconds() if peer else math.nan)
                for _ in range(WARM_UP + rounds)
            ]
            turns[name] = taken[WARM_UP:]
            if peer is None:
                break
            peer.close()
    return report(config, size, turns, peak, alone)


def report(
    config: ModelConfig, size: Size, turns: dict[str, list[Turn]], peak: float, alone: bool
) -> dict[str, Any]:
    """Medians over the rounds; a ratio is the median of the rounds' own ratios."""
    count = size.rows * size.length

    def speed(seconds: list[float]) -> dict[str, Any]:
        step = statistics.median(seconds)
        share = training_flops(config, count, size.length) / step / peak
        return {"tokens_per_second": round(count / step), "share_of_bf16_peak": round(share, 3)}

    def better(*names: str) -> dict[str, Any]:
        medians = {name: statistics.median(turn.theirs for turn in turns[name]) for name in names}
        chosen = min(medians, key=medians.__getitem__)
        beside = turns[chosen]
        return {
            "setting": chosen,
            "tokens_per_second": round(count / medians[chosen]),
            "ratio": round(statistics.median(turn.theirs / turn.bf16 for turn in beside), 2),
            "ratio_int8": round(statistics.median(turn.theirs / turn.int8 for turn in beside), 2),
        }

    all_turns = [turn for taken in turns.values() for turn in taken]
    ours = {
        "parameters": num_parameters(config),
        "active_parameters": num_parameters(config, active=True),
        "bf16": speed([turn.bf16 for turn in all_turns]),
        "int8": speed([turn.int8 for turn in all_turns]),
    }
    if alone:
        return ours
    return ours | {
        "transformers": better("fp32, sdpa", "bf16 autocast, sdpa"),
        "transformers_eager_attention": better("fp32, eager", "bf16 autocast, eager"),
    }


def main() -> None:
    """Measure the sizes asked for and print the JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default=",".join(SIZES), help="of 1m, 10m, 100m")
    parser.add_argument("--kinds", default="dense,moe")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--alone", action="store_true", help="without transformers")
    chosen = parser.parse_args()
    peak = matmul_peak()
    results = {
        f"{name}-{kind}": compare(SIZES[name], kind, chosen.rounds, peak, chosen.alone)
        for name in chosen.sizes.split(",")
        for kind in chosen.kinds.split(",")
    }
    machine = {"threads": torch.get_num_threads(), "bf16_matmul_gflops": round(peak / 1e9)}
    print(json.dumps({"machine": machine, **results}, indent=1))


if __name__ == "__main__":
    main()
