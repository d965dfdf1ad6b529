"""A server in the stead of our engine: the same numbers, weights that are surely the run's, and what goes wrong."""

import threading
import time

import pytest
import torch

from clearseek.config.engine import Vllm
from clearseek.config.errors import InputError, RunError
from clearseek.config.model import ModelConfig
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.vllm_engine import VllmEngine
from tests.engine.scripted import small_tokenizer
from tests.engine.vllm_stand_in import LONGEST, VllmStandIn
from tests.model.tiny import GROUPED, tiny_model

TOKENS = 12
PROMPTS = [(5, 6, 7), (9, 8, 7, 6, 5), (11,)]


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


@pytest.fixture(scope="module")
def models(tokenizer):
    """Two of the same shape."""
    config = ModelConfig(family="qwen3", **GROUPED | {"vocab_size": tokenizer.vocab_size})
    return [tiny_model(config, seed) for seed in range(2)]


@pytest.fixture
def server(models):
    with VllmStandIn(models[1]) as stand_in:
        yield stand_in


@pytest.fixture
def notes():
    return []


@pytest.fixture
def connect(server, models, tokenizer, tmp_path, notes):
    def connected(model=models[0], url=server.url, **settings):
        chosen = Vllm(kind="vllm", url=url, **settings)
        return VllmEngine(model, tokenizer, torch.float32, chosen, tmp_path / "engine", notes.append)

    return connected


def requests(temperature=1.0, num_samples=3):
    sampling = Sampling(temperature, 1.0, TOKENS)
    return [Request(prompt, 2**63 + 99 * i, num_samples, sampling) for i, prompt in enumerate(PROMPTS)]


def ours(model, tokenizer, asked):
    return Engine(model, tokenizer.stop_ids, torch.float32).generate(asked)


def numbers(groups):
    return [[(one.tokens, one.log_probs, one.finish_reason) for one in group] for group in groups]


# What it samples


def test_it_says_what_our_engine_says(connect, models, tokenizer):
    """Of greedy decoding tokens and log-probabilities are the same; the server began with other weights."""
    asked = requests(temperature=0.0, num_samples=1)
    found, wanted = connect().generate(asked), ours(models[0], tokenizer, asked)
    for mine, theirs in zip(found, wanted, strict=True):
        assert [one.tokens for one in mine] == [one.tokens for one in theirs]
        assert [one.finish_reason for one in mine] == [one.finish_reason for one in theirs]
        assert mine[0].log_probs == pytest.approx(theirs[0].log_probs, abs=1e-5)


def test_greedy_samples_are_asked_for_once(connect, server, models, tokenizer):
    """vLLM refuses to be asked for several."""
    asked = requests(temperature=0.0, num_samples=3)
    found = connect().generate(asked)
    assert [body["n"] for body in server.questions] == [1, 1, 1]
    for group, wanted in zip(found, ours(models[0], tokenizer, asked), strict=True):
        assert [one.tokens for one in group] == [one.tokens for one in wanted]


def test_a_seed_is_a_function_of_the_key(connect, server):
    asked = requests()
    connect().generate(asked)
    bodies = {tuple(body["prompt"]): body for body in server.questions}
    assert [bodies[request.prompt]["seed"] for request in asked] == [request.key // 4 for request in asked]
    assert {body["n"] for body in bodies.values()} == {3}
    assert max(body["seed"] for body in bodies.values()) + 3 < 2**63


def test_every_end_of_the_model_ends_a_completion_and_no_other(connect, server, tokenizer, monkeypatch):
    ends = frozenset(range(0, tokenizer.vocab_size, 3))
    monkeypatch.setattr(tokenizer, "stop_ids", ends)
    found = [one for group in connect().generate(requests()) for one in group]
    assert {body["stop_token_ids"] == sorted(ends) for body in server.questions} == {True}
    assert {one.finish_reason for one in found} >= {"stop"}
    for one in found:
        assert (one.tokens[-1] in ends) == (one.finish_reason == "stop")
        assert not ends & set(one.tokens[:-1])


def test_entropy_is_estimated_by_what_was_drawn(connect, models, tokenizer):
    """The mean of −log p over many samples is near what our engine computes from all tokens."""
    asked = [Request(PROMPTS[0], 7, 200, Sampling(1.0, 1.0, 4))]
    estimates = [one.entropy for one in connect().generate(asked)[0]]
    exact = [one.entropy for one in ours(models[0], tokenizer, asked)[0]]
    assert sum(estimates) / 200 == pytest.approx(sum(exact) / 200, rel=0.1)


def test_nothing_is_left_to_the_servers_own_defaults(connect, server):
    connect().generate(requests()[:1])
    (body,) = server.questions
    assert {key: body[key] for key in ("top_k", "min_p", "repetition_penalty")} == {
        "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0
    }  # fmt: skip
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (1.0, 1.0, TOKENS)


def test_no_requests_ask_nothing(connect, server):
    engine, before = connect(), len(server.asked)
    assert engine.generate([]) == []
    assert len(server.asked) == before


# Weights


def test_new_weights_are_put_there_and_old_answers_forgotten(connect, server, models, tokenizer):
    engine, asked = connect(), requests(temperature=0.0, num_samples=1)
    first = engine.generate(asked)
    assert server.warm
    engine.load_weights(models[1])
    assert not server.warm
    assert not server.paused
    second = engine.generate(asked)
    assert [one.tokens for (one,) in second] == [one.tokens for (one,) in ours(models[1], tokenizer, asked)]
    assert [[one.weights_version for one in group] for group in (*first, *second)] == [[0]] * 3 + [[1]] * 3
    assert len(server.paths("/collective_rpc")) == 2


def test_weights_that_are_there_are_not_put_again(connect, server, models):
    connect()
    connect()
    connect().load_weights(models[0])
    assert len(server.paths("/collective_rpc")) == 1


def test_weights_half_loaded_pass_for_nobodys(connect, server, models):
    """Whoever is killed while the server loads leaves a version there that no weights have."""
    engine = connect()
    server._reload = lambda body: (500, {"error": {"message": "no such file"}})
    with pytest.raises(RunError, match=r"refused /collective_rpc \(HTTP 500\): no such file"):
        engine.load_weights(models[1])
    assert server.version == "loading"
    assert not server.paused


def test_weights_go_where_the_recipe_says(connect, server, tmp_path):
    connect(directory=str(tmp_path / "shared"))
    (body,) = server.paths("/collective_rpc")
    assert body == {"method": "reload_weights", "kwargs": {"weights_path": str(tmp_path / "shared")}}
    assert (tmp_path / "shared" / "tokenizer.json").exists()


def test_a_restarted_server_is_given_the_weights_again(connect, server, models, tokenizer):
    engine, asked = connect(), requests(temperature=0.0, num_samples=1)
    server.restart(models[1])
    found = engine.generate(asked)
    assert [one.tokens for (one,) in found] == [one.tokens for (one,) in ours(models[0], tokenizer, asked)]


def test_what_a_server_answers_that_restarts_meanwhile_is_asked_again(connect, server, models, tokenizer):
    """Its answers may be of the weights that it was started with."""
    engine, asked = connect(requests_at_once=1), requests(temperature=0.0, num_samples=1)

    def restart_once(answer):
        server.change = None
        server.restart(models[1])
        return answer

    server.change = restart_once
    found = engine.generate(asked)
    assert [one.tokens for (one,) in found] == [one.tokens for (one,) in ours(models[0], tokenizer, asked)]
    assert len(server.questions) == 2 * len(asked)


def test_two_runs_on_one_server_are_told_apart(connect, server):
    engine = connect()

    def others(answer):
        server.version = "of another run"
        return answer

    server.change = others
    with pytest.raises(RunError, match=r"lost the weights 3 times.*give every run a server of its own"):
        engine.generate(requests())


# The connection


def test_a_lost_answer_is_asked_for_again(connect, server):
    engine, asked = connect(), requests()
    server.losses = 2
    found = engine.generate(asked)
    server.losses = 0
    assert [len(group) for group in found] == [3, 3, 3]


def test_a_server_that_keeps_losing_answers_ends_the_run(connect, server):
    engine = connect()
    server.losses = 10**6
    with pytest.raises(RunError, match="went away 3 times while it was asked the same"):
        engine.generate(requests()[:1])


def test_a_server_that_is_not_there_is_waited_for_and_named(connect, tmp_path, notes):
    """Law 7; how to start it is said at once and in the end, as can be typed."""
    with pytest.raises(
        RunError, match=r"no vLLM at http://127.0.0.1:9 within 0\.3 s \(.*refused.*\)"
    ) as error:
        connect(url="http://127.0.0.1:9", start_timeout_seconds=0.3)
    command = (
        f"VLLM_SERVER_DEV_MODE=1 vllm serve {tmp_path}/engine/weights --host 127.0.0.1 --port 9 --dtype float32 "
        "--logprobs-mode processed_logprobs"
    )
    assert command in str(error.value)
    assert notes == [f"waiting for vLLM at http://127.0.0.1:9; start it with: {command}"]
    assert (tmp_path / "engine" / "weights" / "config.json").exists()


def test_a_server_that_comes_late_is_found(connect, models, server, notes):
    server.health = server.answer
    ready = time.monotonic() + 0.3
    server.answer = lambda *asked: (503, b"") if time.monotonic() < ready else server.health(*asked)
    assert connect().generate(requests())
    assert len(notes) == 1


def test_an_answer_that_does_not_come_in_time_ends_the_run(connect, server):
    engine = connect(answer_timeout_seconds=0.2)
    server.delay_seconds = 1.0
    with pytest.raises(RunError, match=r"did not answer /v1/completions within 0\.2 s"):
        engine.generate(requests()[:1])


def test_an_interrupt_waits_for_no_answer(connect, server, monkeypatch):
    """What is on its way is given up, whatever time the recipe leaves it."""
    engine = connect(requests_at_once=2)
    server.delay_seconds = 20.0
    answer, started = engine._answer, time.monotonic()

    def interrupted(request):
        if request.prompt == PROMPTS[0]:
            raise KeyboardInterrupt
        return answer(request)

    monkeypatch.setattr(engine, "_answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.generate(requests())
    assert time.monotonic() - started < 10


def test_the_key_of_the_environment_is_sent(connect, server, monkeypatch):
    server.api_key = "hidden"
    with pytest.raises(InputError, match="wants a key: set VLLM_API_KEY"):
        connect()
    monkeypatch.setenv("VLLM_API_KEY", "hidden")
    assert connect().generate(requests())


def test_many_prompts_are_asked_at_a_time_and_no_more(connect, server):
    engine, running, most = connect(requests_at_once=2), [0], [0]
    lock, complete = threading.Lock(), server.answer

    def counted(path, *rest):
        if path != "/v1/completions":
            return complete(path, *rest)
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.05)
        with lock:
            running[0] -= 1
        return complete(path, *rest)

    server.answer = counted
    engine.generate(requests() * 2)
    assert most == [2]


# What is refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"logprobs_mode": "raw_logprobs"}, "as raw_logprobs, not as it samples them"),
        ({"dev_mode": False}, "started without its development mode"),
        ({"dtype": torch.bfloat16}, r"computes in torch\.bfloat16, this run in torch\.float32"),
    ],
)
def test_a_server_that_was_started_otherwise_is_refused(connect, server, change, message):
    for name, value in change.items():
        setattr(server, name, value)
    with pytest.raises(InputError, match=f"{message}.*; start it with: VLLM_SERVER_DEV_MODE=1 vllm serve"):
        connect()
    assert server.paths("/collective_rpc") == []


def test_a_server_of_another_model_is_refused(connect, server, models):
    """One that takes the weights and makes something else of them, as vLLM does where layers are missing."""
    reload = server._reload

    def without_its_last_layer(body):
        found = reload(body)
        server.model.layers = server.model.layers[:-1]
        return found

    server._reload = without_its_last_layer
    with pytest.raises(
        InputError, match=r"makes something else .* differ by [0-9.]+ on average.* start it with"
    ):
        connect()


def test_a_server_that_can_not_take_the_weights_is_told_of_its_shape(connect, server):
    server._reload = lambda body: (500, {"error": {"message": "shapes"}})
    with pytest.raises(
        RunError, match=r"500\): shapes; if it was started with a model of another shape, start it"
    ):
        connect()


def test_what_does_not_fit_the_servers_context_is_refused(connect):
    engine = connect()
    request = Request((5,) * 200, 0, 1, Sampling(1.0, 1.0, 57))
    with pytest.raises(InputError, match=f"200 tokens.*57.*exceed the {LONGEST} tokens.*--max-model-len"):
        engine.generate([request])


@pytest.mark.parametrize("setting", [{"top_k": 5}, {"stop": ("a",)}, {"thinking_budget": 3}])
def test_settings_that_are_not_passed_on_are_refused(connect, setting):
    engine = connect()
    with pytest.raises(InputError, match="with temperature, top_p and max_tokens alone"):
        engine.generate([Request((5,), 0, 1, Sampling(1.0, 1.0, 8, **setting))])


def first_choice(**changes):
    def change(answer):
        answer["choices"][0] |= changes
        return answer

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answer: {}, "does not answer as version 0.32 does.*choices"),
        (lambda answer: {"choices": answer["choices"][:2]}, "gave 2 of 3 completions"),
        (first_choice(token_ids=None), "does not answer as version 0.32 does"),
        (first_choice(token_ids=[], logprobs={"token_logprobs": []}), "0 tokens"),
        (first_choice(token_ids=[5, 6]), "2 tokens, log-probabilities"),
        (first_choice(token_ids=[5], logprobs={"token_logprobs": [float("nan")]}), "log-probabilities .nan"),
        (first_choice(token_ids=[5], logprobs={"token_logprobs": [None]}), "does not answer as"),
        (first_choice(finish_reason="abort"), "finish_reason abort"),
        (
            first_choice(token_ids=[5], logprobs={"token_logprobs": [-1.0]}, finish_reason="stop"),
            r"ended a completion \(stop\) with token 5; the model's ends are",
        ),
    ],
)
def test_an_answer_that_is_none_is_named(connect, server, change, message):
    engine = connect()
    server.change = change
    with pytest.raises(RunError, match=message):
        engine.generate(requests()[:1])


@pytest.mark.parametrize("what", ["/server_info", "/v1/models"])
def test_a_server_that_is_not_vllm_is_named(connect, server, what):
    answer = server.answer
    server.answer = lambda path, *rest: (200, {}) if path.startswith(what) else answer(path, *rest)
    with pytest.raises(RunError, match="does not say"):
        connect()


def test_a_refusal_is_told_in_the_servers_words(connect, server):
    engine = connect()
    server._complete = lambda body: (400, {"error": {"message": "prompt\nis too odd"}})
    with pytest.raises(RunError, match=r"refused /v1/completions \(HTTP 400\): prompt is too odd"):
        engine.generate(requests()[:1])


def test_an_answer_that_is_no_json_is_named(connect, server):
    answer = server.answer
    server.answer = lambda path, *rest: (200, b"<html>") if path == "/weight_info" else answer(path, *rest)
    with pytest.raises(
        RunError, match=r"/weight_info does not answer as vLLM does; check the recipe's engine\.url"
    ):
        connect()


# What was answered before


def test_a_run_that_goes_on_is_answered_as_before(connect, server):
    """Law 3 beside a server that never says the same twice."""
    server.drifts = True
    before = connect().generate(requests())
    count = len(server.questions)
    engine = connect()
    assert numbers(engine.generate(requests())) == numbers(before)
    assert len(server.questions) == count
    others = [Request((5, 6, 7), 1, 3, Sampling(1.0, 1.0, TOKENS))]
    assert numbers(engine.generate(others)) != numbers(before[:1])


def test_answers_of_other_weights_or_settings_are_no_answers(connect, server, models):
    engine = connect()
    engine.generate(requests(num_samples=2))
    count = len(server.questions)
    engine.generate(requests(num_samples=3))
    engine.generate(requests(temperature=0.5, num_samples=2))
    engine.load_weights(models[1])
    engine.generate(requests(num_samples=2))
    assert len(server.questions) == count + 9


def test_answers_that_no_resume_point_needs_are_removed(connect, models, tmp_path):
    engine, folder = connect(), tmp_path / "engine" / "answered"
    engine.generate(requests())
    (first,) = folder.iterdir()
    engine.load_weights(models[1])
    assert first.exists()
    engine._needed_since = lambda: first.stat().st_mtime + 1
    engine.load_weights(models[1])
    assert not first.exists()


def test_answers_torn_by_hand_are_named(connect, tmp_path):
    connect().generate(requests())
    (path,) = (tmp_path / "engine" / "answered").iterdir()
    path.write_bytes(b"[1]\n" + path.read_bytes())
    with pytest.raises(RunError, match=r"not what was answered .*; remove it"):
        connect().generate(requests())
