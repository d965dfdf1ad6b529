"""Saving writes what vLLM reads: the same greedy tokens and log-probabilities, from directories as we save them."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.engine_bench.workers import ENGINES, Worker
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.model.checkpoint import save_model
from clearseek.model.families import config_from_published
from tests.model.published import config_json
from tests.model.tiny import some_tokens, tiny_model

VLLM = dataclasses.replace(ENGINES["vllm"], options=("tests",))
pytestmark = [
    pytest.mark.skipif(not VLLM.python.exists(), reason="vLLM is absent: make peers-vllm makes it"),
    pytest.mark.timeout(600),
]
TOKENS = 24
# heads as wide as its kernels take, and the one size of latents
SIZES = {
    "vocab_size": 128,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}
GROUPED = SIZES | {"num_key_value_heads": 2, "head_dim": 32}
LATENT = SIZES | {
    "q_lora_rank": 64,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "moe_intermediate_size": 64,
}
FAMILIES = {
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": GROUPED,
    "Qwen3ForCausalLM": GROUPED,
    "Qwen3MoeForCausalLM": GROUPED | {"moe_intermediate_size": 64},
    "DeepseekV3ForCausalLM": LATENT,
    "Ernie4_5ForCausalLM": GROUPED,
    "HunYuanDenseV1ForCausalLM": GROUPED,
    "MiMoForCausalLM": GROUPED,
    "PanguEmbeddedForCausalLM": GROUPED,
}


# what transformers has no configuration for: the publisher's checkpoints bring one as code, of this kind
AS_CODE = {"MiMoForCausalLM": "Qwen2Config", "PanguEmbeddedForCausalLM": "LlamaConfig"}


def add_configuration(directory: Path, like: str) -> None:
    """Put code beside a saved model that reads its config.json, as published directories have it."""
    path = directory / "config.json"
    published = json.loads(path.read_text())
    lines = (
        f"from transformers import {like}",
        f"class Published({like}):",
        f"    model_type = {published['model_type']!r}",
    )
    (directory / "configuration.py").write_text("\n".join(lines) + "\n")
    path.write_text(json.dumps(published | {"auto_map": {"AutoConfig": "configuration.Published"}}))


@pytest.mark.parametrize("architecture", FAMILIES)
def test_vllm_reads_what_is_saved_and_generates_the_same(architecture, tmp_path):
    config = config_from_published(config_json(architecture, 0) | FAMILIES[architecture], Path("config.json"))
    model = tiny_model(config, std=0.1)
    save_model(model, tmp_path / "saved", bos_id=0, eos_id=1, pad_id=2)
    if architecture in AS_CODE:
        add_configuration(tmp_path / "saved", AS_CODE[architecture])
    prompts = some_tokens(config, 3, 17).tolist()
    requests = [Request(tuple(ids), 0, 1, Sampling(0.0, 1.0, TOKENS)) for ids in prompts]
    ours = [group[0] for group in Engine(model, (), model.embedding.weight.dtype).generate(requests)]
    with Worker(VLLM, 2, tmp_path / "log") as worker:
        worker.ask("load", path=str(tmp_path / "saved"), format_name="fp32")
        theirs = worker.ask(
            "generate", prompts=prompts, max_tokens=TOKENS, samples=1, temperature=0.0, shares=False
        )
    assert theirs["tokens"] == [completion.tokens for completion in ours]
    differences = [
        abs(a - b)
        for completion, log_probs in zip(ours, theirs["log_probs"], strict=True)
        for a, b in zip(completion.log_probs, log_probs, strict=True)
    ]
    print(f"{architecture}: largest difference of log-probabilities {max(differences):.1e}")
    assert max(differences) < 1e-4
