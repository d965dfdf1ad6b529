"""A reinforcement-learning stage whose completions a server samples: on policy, and the same after a kill."""

import httpx
import pytest
import torch

from clearseek.config.errors import RunError
from clearseek.config.model import ModelConfig
from clearseek.config.progress import SilentProgress
from clearseek.config.recipe import Recipe
from clearseek.engine.engine import Engine
from clearseek.engine.vllm_engine import VllmEngine
from clearseek.ledger.log import Ledger, read
from clearseek.ledger.timings import Timings
from clearseek.serve.engine_service import EngineService
from clearseek.serve.engine_thread import ThreadLine
from clearseek.serve.registry import Registry
from clearseek.serve.served_model import ServedModel
from clearseek.train.context import StageContext
from clearseek.train.rl import PolicyTrainer
from tests.engine.scripted import PlainVerifiers, small_tokenizer
from tests.engine.vllm_stand_in import LONGEST, VllmStandIn
from tests.model.tiny import LATENT, tiny_model
from tests.serve.live import live
from tests.train.ranks import on_ranks
from tests.train.small import CPU, rl_stage

FILES = ("ledger.jsonl", "samples.jsonl")


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def model_of(tokenizer, seed=0):
    return tiny_model(ModelConfig(**LATENT | {"vocab_size": tokenizer.vocab_size}), seed, std=0.1)


@pytest.fixture
def server(tokenizer):
    with VllmStandIn(model_of(tokenizer, seed=1)) as stand_in:
        yield stand_in


def trainer_of(folder, tokenizer, url, model=None, **settings):
    """A trainer and the files it writes; the model's thoughts never close, its language alone is rewarded."""
    tasks = {"tasks": ["arithmetic"], "levels": [1], "languages": ["en"]}
    engine = None if url is None else {"kind": "vllm", "url": url}
    stage = rl_stage(
        **{
            "problems": tasks,
            "max_completion_tokens": 12,
            "sequence_length": 96,
            "profile": "r1",
            "engine": engine,
        }
        | settings
    )
    files = *(Ledger(folder / name) for name in FILES), Timings(folder / "timings.jsonl")
    recipe = Recipe(name="t", stages={"rl": stage})
    context = StageContext(
        recipe, "rl", folder, *files, SilentProgress(), PlainVerifiers(), CPU, torch.float32,
        compile=False, examine=lambda *_: {},
    )  # fmt: skip
    return PolicyTrainer(context, stage, model or model_of(tokenizer), tokenizer), files


def run(folder, tokenizer, url, model=None, **settings):
    """The records of the steps of a whole stage, and its trainer."""
    trainer, files = trainer_of(folder, tokenizer, url, model, **settings)
    try:
        trainer.run()
    finally:
        for file in files:
            file.close()
    return trainer, [r for r in read(folder / "ledger.jsonl") if r["kind"] == "step"]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_stage_beside_a_server_is_on_policy(server, tokenizer, tmp_path, temperature):
    """T5 at every step: the server has the weights of now and reports what it sampled with."""
    trainer, records = run(tmp_path, tokenizer, server.url, steps=3, temperature=temperature)
    assert isinstance(trainer.engine, VllmEngine)
    assert len(records) == 3
    for record in records:
        assert 0 < record["mismatch"] < 1e-5
        assert record["clip_fraction"] == 0
        assert 2 * 4 * 6 < record["tokens"] <= 2 * 4 * 12
    assert len(server.paths("/collective_rpc")) == 3


class OursBehind(VllmStandIn):
    """What samples is our own server, `clearseek serve`; of vLLM's calls it speaks the completions.

    What is vLLM's development mode and scores of prompts are the stand-in's.
    """

    def __init__(self, engine, url):
        super().__init__(engine.model)
        self.engine, self.url_behind = engine, url

    def _reload(self, body):
        found = super()._reload(body)
        self.engine.load_weights(self.model)
        return found

    def _complete(self, body):
        if "prompt_logprobs" in body:
            return super()._complete(body)
        answer = httpx.post(f"{self.url_behind}/v1/completions", json=body, timeout=60)
        return answer.status_code, answer.json()


def test_our_own_server_can_be_the_one_that_samples(tokenizer, tmp_path):
    """On policy at every step: it has the weights of now, reports what it drew with, and ends where told to."""
    engine = Engine(model_of(tokenizer, seed=1), tokenizer.stop_ids, torch.float32, 8, tokenizer=tokenizer)
    service = EngineService(ThreadLine(engine), tokenizer, 64)
    registry = Registry([ServedModel("served", tokenizer, service, LONGEST, {})])
    with live(registry) as address, OursBehind(engine, address) as behind:
        _, records = run(tmp_path, tokenizer, behind.url, steps=3)
    assert len(records) == 3
    for record in records:
        assert 0 < record["mismatch"] < 1e-5
        assert 0 < record["tokens"] <= 2 * 4 * 12
    assert len(behind.paths("/collective_rpc")) == 3
    assert len(behind.questions) == 3 * 2


def test_it_records_what_our_own_engine_does(server, tokenizer, tmp_path, monkeypatch):
    """From the streams that the server is told to draw from, as it draws as we do; of entropy an estimate."""
    _, theirs = run(tmp_path / "theirs", tokenizer, server.url)
    key = StageContext.key
    monkeypatch.setattr(StageContext, "key", lambda *address: key(*address) >> 2)
    _, ours = run(tmp_path / "ours", tokenizer, None)
    counts = ("correct", "wrong", "unparseable", "error", "truncated", "groups", "dropped", "tokens")
    assert [[r[name] for name in counts] for r in ours] == [[r[name] for name in counts] for r in theirs]
    assert ours[0].keys() == theirs[0].keys()
    for mine, other in zip(ours, theirs, strict=True):
        assert other["entropy"] == pytest.approx(mine["entropy"], rel=0.2)
        assert other["loss"] == pytest.approx(mine["loss"], rel=1e-3)


def test_a_server_of_other_weights_ends_the_run(server, tokenizer, tmp_path):
    """Law 1, where a server says that it has the weights and has not."""
    trainer, files = trainer_of(tmp_path, tokenizer, server.url, max_mismatch=0.05, max_mean_mismatch=0.05)
    with torch.no_grad():
        server.model.embedding.weight.mul_(1.5)
    with pytest.raises(RunError, match="stage rl, step 1: sampler and trainer differ by"):
        trainer.run()
    for file in files:
        file.close()


class Killed(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.parametrize("where", ["_save", "update", "_describe"])
def test_a_killed_stage_goes_on_to_the_same_bytes(server, tokenizer, tmp_path, where):
    """Law 3 beside a server that never says the same twice: what it said was kept."""
    server.drifts = True
    settings = {"steps": 4, "checkpoint_every": 2, "language_consistency_weight": 1.0}
    trainer, files = trainer_of(tmp_path, tokenizer, server.url, **settings)
    does, calls = getattr(trainer, where), []

    def stop(*arguments):
        result = does(*arguments)
        calls.append(arguments)
        if len(calls) == (2 if where == "_save" else 4):
            raise Killed
        return result

    setattr(trainer, where, stop)
    with pytest.raises(Killed):
        trainer.run()
    for file in files:
        file.close()
    before, asked = (tmp_path / "ledger.jsonl").read_bytes(), len(server.questions)
    _, records = run(tmp_path, tokenizer, server.url, **settings)
    assert (tmp_path / "ledger.jsonl").read_bytes().startswith(before)
    assert len(records) == 4
    again = 0 if where != "_save" else 4
    assert len(server.questions) == asked + again


def test_what_older_steps_were_answered_is_not_kept_for_ever(server, tokenizer, tmp_path):
    trainer, _ = run(
        tmp_path, tokenizer, server.url, steps=8, checkpoint_every=1, language_consistency_weight=1.0
    )
    kept = list((trainer.context.partial_dir / "engine" / "answered").iterdir())
    assert 0 < len(kept) <= 4


def on_this_rank(folder, tokenizer, url):
    trainer, records = run(folder / str(torch.distributed.get_rank()), tokenizer, url)
    return [record["mismatch"] for record in records], trainer.engine._weights


def test_ranks_share_a_server(server, tokenizer, tmp_path):
    """The first puts the weights there; each asks for its share of the samples and learns from all."""
    results = on_ranks(2, on_this_rank, tmp_path, tmp_path, tokenizer, server.url)
    assert results[0] == results[1]
    assert all(0 < mismatch < 1e-5 for mismatch in results[0][0])
    assert len(server.paths("/collective_rpc")) == 2
    assert len(server.questions) == 2 * 2
