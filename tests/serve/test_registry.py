"""Models by name: opened when asked for, given up for others, a run's checkpoints among them."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from click.testing import CliRunner

from clearseek.cli.serve import command
from clearseek.config.errors import InputError
from clearseek.config.server import Server
from clearseek.model.checkpoint import save_model
from clearseek.serve.errors import ApiError, Busy, LacksMemory
from clearseek.serve.open import How, find_sources
from clearseek.serve.registry import Registry, Source
from clearseek.serve.room import available_bytes
from tests.model.every_family import small
from tests.model.tiny import tiny_model
from tests.serve.live import live
from tests.serve.scripted import scripted_model


class Opened:
    """Sources that note what is open."""

    def __init__(self, tokenizer, sizes):
        self.open, self.times = set(), dict.fromkeys(sizes, 0)
        self.sources = [
            Source(name, lambda name=name: self._make(tokenizer, name), size) for name, size in sizes.items()
        ]

    def _make(self, tokenizer, name):
        model = scripted_model(tokenizer, name, name)
        model.service.close = lambda seconds: self.open.remove(name)
        self.open.add(name)
        self.times[name] += 1
        return model


def test_models_are_opened_once_when_they_are_asked_for(tokenizer):
    opened = Opened(tokenizer, {"a": 1, "b": 1})
    registry = Registry(sources=opened.sources)

    async def ask():
        models = await asyncio.gather(
            *(registry.get(name) for name in ("b", "b", "a", None, "deepseek-chat"))
        )
        return [model.name for model in models]

    assert opened.open == set()
    assert asyncio.run(ask()) == ["b", "b", "a", "a", "a"]
    assert opened.times == {"a": 1, "b": 1}


def test_memory_is_taken_from_who_was_not_asked_the_longest(tokenizer):
    opened = Opened(tokenizer, {"a": 3, "b": 3, "c": 3})
    registry = Registry(sources=opened.sources, available=lambda device: 7 - 3 * len(opened.open))

    async def ask():
        for name in ("a", "b", "a", "c"):
            (await registry.get(name)).release()

    asyncio.run(ask())
    assert opened.open == {"a", "c"}


def test_who_answers_is_waited_for_in_vain(tokenizer):
    opened = Opened(tokenizer, {"a": 3, "b": 3})
    registry = Registry(sources=opened.sources, most_open=1, patience_seconds=0.1)

    async def ask():
        await registry.get("a")
        with pytest.raises(Busy, match="there is no memory for b: the others were answering"):
            await registry.get("b")

    asyncio.run(ask())
    assert opened.open == {"a"}


def test_who_answers_is_not_given_up_but_waited_for(tokenizer):
    opened = Opened(tokenizer, {"a": 3, "b": 3})
    registry = Registry(sources=opened.sources, most_open=1)

    async def ask():
        model = await registry.get("a")
        waiting = asyncio.create_task(registry.get("b"))
        await asyncio.sleep(0.05)
        assert (opened.open, waiting.done()) == ({"a"}, False)
        model.release()
        assert (await waiting).name == "b"
        with pytest.raises(ApiError, match="there is no model 'd'; GET /v1/models lists: a, b"):
            await registry.get("d")

    asyncio.run(ask())
    assert opened.open == {"b"}


def test_who_asks_for_an_open_model_waits_behind_who_waits_for_room(tokenizer):
    opened = Opened(tokenizer, {"a": 3, "b": 3})
    registry, order = Registry(sources=opened.sources, most_open=1), []

    async def use(name):
        model = await registry.get(name)
        order.append(model.name)
        await asyncio.sleep(0.05)
        model.release()

    async def ask():
        first = asyncio.create_task(use("a"))
        await asyncio.sleep(0.02)
        others = [asyncio.create_task(use("b"))]
        await asyncio.sleep(0.02)
        others += [asyncio.create_task(use(name)) for name in ("a", "a", "b")]
        await asyncio.gather(first, *others)

    asyncio.run(ask())
    assert order == ["a", "b", "b", "a", "a"]
    assert opened.times == {"a": 2, "b": 1}


def test_no_more_are_opened_at_once_than_may_be_however_many_ask(tokenizer):
    opened = Opened(tokenizer, dict.fromkeys("abc", 3))
    registry, most = Registry(sources=opened.sources, most_open=1), 0

    async def use(name):
        nonlocal most
        model = await registry.get(name)
        most = max(most, len(opened.open))
        assert name in opened.open
        await asyncio.sleep(0.001)
        assert name in opened.open
        model.release()

    async def ask():
        await asyncio.gather(*(use("abc"[number % 3]) for number in range(60)))

    asyncio.run(ask())
    assert most == 1


def test_who_leaves_while_waiting_holds_nothing(tokenizer):
    opened = Opened(tokenizer, {"a": 3, "b": 3})
    registry = Registry(sources=opened.sources, most_open=1)

    async def ask():
        model = await registry.get("a")
        leaving = asyncio.create_task(registry.get("b"))
        await asyncio.sleep(0.05)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        model.release()
        (await registry.get("b")).release()
        (await registry.get("a")).release()

    asyncio.run(ask())
    assert opened.open == {"a"}


def test_a_model_that_does_not_come_is_not_waited_for_without_end(tokenizer, monkeypatch):
    """And once it has come after all nobody holds it."""
    monkeypatch.setattr("clearseek.serve.registry._OPENING_SECONDS", 0.05)
    read = threading.Event()

    def slowly():
        assert read.wait(10)
        return scripted_model(tokenizer, "slow", "slow")

    registry = Registry(sources=[Source("slow", slowly, 1)], patience_seconds=0.0)

    async def ask():
        with pytest.raises(Busy, match="slow is still being opened"):
            await registry.get("slow")
        read.set()
        monkeypatch.setattr("clearseek.serve.registry._OPENING_SECONDS", 10.0)
        model = await registry.get("slow")
        assert model.num_claims == 1

    asyncio.run(ask())


def test_eight_clients_share_three_models_in_the_memory_of_one(run):
    sources = find_sources([str(run)], Server(), How(form="float32"))
    asked = {"prompt": "12 + 5", "max_tokens": 8, "temperature": 0}
    with live(Registry(sources=sources, most_open=1)) as address:

        def say(number):
            with openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0) as client:
                name = sources[number % 3].name
                return name, client.completions.create(model=name, **asked).choices[0].text

        with ThreadPoolExecutor(8) as clients:
            said = list(clients.map(say, range(24)))
    assert len(set(said)) == 3
    assert len({text for name, text in said if name != "mine"}) == 2


@pytest.fixture(scope="module")
def run(tokenizer, tmp_path_factory):
    """A run of two stages that left models."""
    run = tmp_path_factory.mktemp("runs") / "mine"
    lines = []
    for seed, stage in enumerate(("base", "tuned")):
        directory = run / "checkpoints" / stage
        directory.mkdir(parents=True)
        model = tiny_model(small("qwen3", vocab_size=tokenizer.vocab_size, max_position_embeddings=128), seed)
        ids = {"bos_id": tokenizer.bos_id, "eos_id": tokenizer.eos_id, "pad_id": tokenizer.pad_id}
        save_model(model, directory, **ids)
        tokenizer.save(directory)
        lines.append(json.dumps({"kind": "stage_finished", "stage": stage}))
    (run / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    return run


def test_a_run_s_checkpoints_answer_by_their_stage(run):
    sources = find_sources([str(run)], Server(), How(form="float32"))
    assert [source.name for source in sources] == ["mine", "mine@base", "mine@tuned"]
    with (
        live(Registry(sources=sources)) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="x") as client,
    ):
        assert [model.id for model in client.models.list()] == ["mine", "mine@base", "mine@tuned"]

        def say(name):
            asked = {"model": name, "prompt": "12 + 5", "max_tokens": 8, "temperature": 0}
            return client.completions.create(**asked).choices[0].text

        assert say("mine") == say("mine@tuned") != say("mine@base")


def test_two_of_one_name_are_refused(run):
    with pytest.raises(InputError, match="another model is called mine already"):
        find_sources([str(run), str(run)], Server(), How())


class Crowded(Opened):
    """Sources that find out only when they are read that there is room for one."""

    def _make(self, tokenizer, name):
        if self.open:
            raise LacksMemory(f"{name}: there is not enough memory for it")
        return super()._make(tokenizer, name)


def test_who_finds_no_memory_gets_that_of_those_that_nobody_needs(tokenizer):
    opened = Crowded(tokenizer, {"a": 1, "b": 1})
    registry = Registry(sources=opened.sources, available=lambda device: None)

    async def ask():
        model = await registry.get("a")
        with pytest.raises(ApiError, match="b can't be opened: b: there is not enough memory for it"):
            await registry.get("b")
        assert opened.open == {"a"}, "it was answering"
        model.release()
        assert (await registry.get("b")).name == "b"

    asyncio.run(ask())
    assert opened.open == {"b"}


def test_room_is_looked_for_where_models_are_computed(tokenizer, monkeypatch, tmp_path):
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\n[ "$1" = --id=2 ] && echo 7 || exit 6\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert available_bytes("cuda") == 7 << 20
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "none")
    assert available_bytes("cuda") is None
    assert (available_bytes("cpu") or 0) > 0
    asked, opened = [], Opened(tokenizer, {"a": 1, "b": 1})
    registry = Registry(sources=opened.sources, available=lambda device: asked.append(device))

    async def ask():
        (await registry.get("a")).device = "cuda"
        await registry.get("b")

    asyncio.run(ask())
    assert asked == ["cpu", "cuda"]


def test_an_alias_is_answered_by_its_model(tokenizer):
    models = [scripted_model(tokenizer, name, name) for name in ("a", "b")]
    with (
        live(Registry(models, {"gpt-4o": "b", "deepseek-chat": "b"})) as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key="x", max_retries=0) as client,
    ):
        asked = {
            "messages": [{"role": "user", "content": "x"}],
            "extra_body": {"thinking": {"type": "disabled"}},
        }
        for name, said in (("gpt-4o", "b"), ("deepseek-chat", "b"), ("deepseek-v4-flash-vision-exp", "a")):
            answer = client.chat.completions.create(model=name, **asked)
            assert (answer.model, answer.choices[0].message.content) == (name, said)
        assert client.models.retrieve("gpt-4o").id == "gpt-4o"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="gpt-5", **asked)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["gpt-4o"], "--alias gpt-4o: it is NAME=MODEL, such as gpt-4o=r1-mini."),
        (["=mine"], "it is NAME=MODEL"),
        (["gpt-4o="], "it is NAME=MODEL"),
        (["x=mine", "x=mine@base"], "--alias x is given for mine and for mine@base."),
        (
            ["x=other"],
            "alias x: there is no model 'other' here; it has to be one of: mine, mine@base, mine@tuned",
        ),
        (["mine@base=mine"], "alias mine@base: a model is called so already"),
    ],
)
def test_an_alias_that_can_not_be_is_said(run, words, why):
    arguments = [word for one in words for word in ("--alias", one)]
    result = CliRunner().invoke(command, [str(run), "--port", "0", *arguments])
    assert result.exit_code != 0
    assert why in (result.output or "") + str(result.exception)


def test_the_command_hands_aliases_on(run, monkeypatch):
    served = []
    monkeypatch.setattr("clearseek.serve.run.serve", lambda settings, registry, *_: served.append(registry))
    monkeypatch.setattr("clearseek.serve.outbound.refuse_outbound", lambda hosts: None)
    monkeypatch.setattr("clearseek.serve.logs.write_logs", lambda form: None)
    monkeypatch.setattr(Registry, "open_first", lambda self: None)
    result = CliRunner().invoke(command, [str(run), "--alias", "gpt-4o=mine@base", "--alias", "claude=mine"])
    assert result.exit_code == 0, result.output
    assert [served[0].resolve(name) for name in ("gpt-4o", "claude")] == ["mine@base", "mine"]
