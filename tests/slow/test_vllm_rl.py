"""Reinforcement learning beside a real vLLM: after every step it has the new weights, and scores as we do."""

import os
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from benchmarks.engine_bench.workers import ENGINES
from clearseek.config.engine import Vllm
from clearseek.config.errors import InputError, RunError
from clearseek.config.recipe import Optimizer
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.vllm_engine import VllmEngine
from clearseek.model.families import config_from_published
from tests.engine.scripted import small_tokenizer
from tests.model.published import config_json
from tests.model.tiny import tiny_model
from tests.slow.test_vllm import FAMILIES
from tests.train.test_rl_with_vllm import run

PYTHON = ENGINES["vllm"].python
START_SECONDS = 300.0
pytestmark = [
    pytest.mark.skipif(not PYTHON.exists(), reason="vLLM is absent: make peers-vllm makes it"),
    pytest.mark.timeout(600),
]
# uncompiled, its own rotary for CPUs turns DeepSeek's queries wrongly, and AMX's latent attention takes no fp32
OPTIONS = ["--enforce-eager", "--compilation-config", '{"custom_ops": ["none"]}', "--max-model-len", "512"]
OPTIONS += ["--max-num-seqs", "32", "--dtype", "float32", "--logprobs-mode", "processed_logprobs"]
LATENT = ["--attention-backend", "CPU_MLA"]
MODELS = {
    "tied": ("Qwen3ForCausalLM", {"tie_word_embeddings": True}, []),
    "latent": ("DeepseekV3ForCausalLM", {"first_k_dense_replace": 3}, LATENT),
}
EXPERTS = ("Qwen3MoeForCausalLM", {}, [])
TOKENS = 12


def config_of(architecture, **changes):
    values = config_json(architecture, 0) | FAMILIES[architecture] | {"vocab_size": TOKENIZER.vocab_size}
    return config_from_published(values | changes, Path("config.json"))


TOKENIZER = small_tokenizer()


def begin(model, directory):
    """What a server is started with: as an engine writes it that finds none."""
    settings = Vllm(
        kind="vllm", url="http://127.0.0.1:9", start_timeout_seconds=0.1, directory=str(directory)
    )
    with pytest.raises(RunError, match="no vLLM"):
        VllmEngine(model, TOKENIZER, torch.float32, settings, directory, lambda text: None)


class Served:
    """A vLLM of some architecture, begun with weights that no test wants."""

    def __init__(self, folder: Path, architecture: str, changes: dict, options: list[str]) -> None:
        self.config, self.folder = config_of(architecture, **changes), folder
        begin(self.model(seed=9), folder / "begun")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        # not `vllm serve`: its command asks for a distribution of another name than this build's
        command = [str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
        command += ["--model", str(folder / "begun"), "--port", str(port), *OPTIONS, *options]
        cores = ",".join(map(str, sorted(os.sched_getaffinity(0))[:2]))
        environment = os.environ | {
            "VLLM_SERVER_DEV_MODE": "1", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": cores,
        }  # fmt: skip
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True, cwd=folder
            )

    def model(self, seed: int = 0, **changes):
        """Random weights of this architecture."""
        return tiny_model(self.config.model_copy(update=changes), seed, std=0.1)

    def engine(self, model, folder, dtype=torch.float32) -> VllmEngine:
        """Our side of it."""
        settings = Vllm(kind="vllm", url=self.url, start_timeout_seconds=START_SECONDS)
        return VllmEngine(model, TOKENIZER, dtype, settings, folder, print)

    def close(self) -> None:
        """End it and what it started."""
        with suppress(ProcessLookupError):  # a test may have ended it
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)


@pytest.fixture(scope="module", params=MODELS)
def served(request, tmp_path_factory):
    server = Served(tmp_path_factory.mktemp(request.param), *MODELS[request.param])
    try:
        server.engine(server.model(seed=8), server.folder / "first")  # waits
        yield server
    finally:
        server.close()


def test_every_step_samples_with_the_weights_of_the_step_before(served, tmp_path):
    """What it reports after each swap equals what the trainer computes to 1e-3, at a temperature besides 1."""
    optimizer, started = Optimizer(learning_rate=3e-3), time.monotonic()
    settings = {"steps": 4, "temperature": 0.7, "optimizer": optimizer, "max_completion_tokens": TOKENS}
    engine = {"engine": {"kind": "vllm", "url": served.url}, "bias_update_rate": 0.0}
    trainer, records = run(tmp_path, TOKENIZER, served.url, served.model(), **settings | engine)
    assert isinstance(trainer.engine, VllmEngine)
    assert trainer.engine.weights_version == 3
    mismatches = [record["mismatch"] for record in records]
    print(f"mismatch {max(mismatches):.1e}, {(time.monotonic() - started) / 4:.1f} s a step")
    assert len(mismatches) == 4
    assert max(mismatches) < 1e-3
    answered = list((tmp_path / "checkpoints/rl.partial/engine/answered").iterdir())
    assert len(answered) == 4  # each step's weights were others


def test_it_says_what_our_engine_says_after_a_swap(served, tmp_path):
    """Greedily, with weights that it did not begin with; and that any of the model's ends ends a completion."""
    prompts = [tuple(range(5, 5 + length)) for length in (3, 9, 17)]
    requests = [Request(prompt, 7, 1, Sampling(0.0, 1.0, TOKENS)) for prompt in prompts]
    engine = served.engine(served.model(1), tmp_path)
    for seed in (2, 3):
        model = served.model(seed)
        engine.load_weights(model)
        ours = Engine(model, TOKENIZER.stop_ids, torch.float32).generate(requests)
        for mine, theirs in zip(ours, engine.generate(requests), strict=True):
            assert mine[0].tokens == theirs[0].tokens
            assert mine[0].log_probs == pytest.approx(theirs[0].log_probs, abs=1e-3)
    engine.stop_ids = frozenset({ours[0][0].tokens[2]})
    again = Request(prompts[0], 8, 2, Sampling(0.0, 1.0, TOKENS))
    for one in engine.generate([again])[0]:
        assert one.finish_reason == "stop"
        assert one.tokens == ours[0][0].tokens[:3]


def test_the_same_seed_draws_the_same_from_the_same_weights(served, tmp_path):
    requests = [Request((5, 6, 7), 2**64 - 1, 4, Sampling(1.0, 0.9, TOKENS))]
    first = served.engine(served.model(), tmp_path / "one").generate(requests)
    second = served.engine(served.model(), tmp_path / "other").generate(requests)
    assert [one.tokens for one in first[0]] == [one.tokens for one in second[0]]
    assert len({tuple(one.tokens) for one in first[0]}) > 1


def test_weights_of_fewer_layers_do_not_pass(served, tmp_path):
    """It loads them without a word and goes on with layers of the ones before."""
    shallow = served.model(num_layers=served.config.num_layers - 1)
    with pytest.raises(InputError, match="makes something else of this stage's weights"):
        served.engine(shallow, tmp_path)


def test_another_dtype_is_refused(served, tmp_path):
    with pytest.raises(InputError, match=r"computes in torch\.float32, this run in torch\.bfloat16"):
        served.engine(served.model(), tmp_path, torch.bfloat16)


def test_experts_that_it_does_not_take_over_are_refused(tmp_path):
    """Its build for CPUs lays experts out once, when it starts, and computes nonsense with those it is given later."""
    server = Served(tmp_path, *EXPERTS)
    try:
        with pytest.raises(
            InputError, match=r"differ by .* can't take over weights of this kind while it runs"
        ):
            server.engine(server.model(), tmp_path / "engine")
    finally:
        server.close()
