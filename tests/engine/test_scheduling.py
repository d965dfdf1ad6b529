"""Many requests over one cache: whatever room there is, in whatever order, each gets what it would get alone."""

import random

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine.blocks import BLOCK_TOKENS, BlockPool
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from tests.engine.finishing import finished
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import some_tokens

SHAPES = ("qwen3", "deepseek_v3")


def model_of(name="qwen3"):
    return lane_sized(name, max_position_embeddings=1024).requires_grad_(False)


def engine_of(name="qwen3", num_blocks=None, monkeypatch=None, **settings):
    """An engine; `num_blocks` bounds its cache."""
    engine = Engine(model_of(name), (), torch.float32, **settings)
    if num_blocks is not None:
        monkeypatch.setattr(Engine, "_most_blocks", lambda self: num_blocks)
    return engine


def requests_of(count=6, samples=2, seed=0, longest=300, **sampling):
    draw = random.Random(seed)
    tokens = some_tokens(model_of().config, count, longest, seed).tolist()
    return [
        Request(
            tuple(row[: draw.randint(1, longest)]),
            50 + i,
            samples,
            Sampling(max_tokens=draw.randint(1, 90), **sampling),
        )
        for i, row in enumerate(tokens)
    ]


def alone(request, name="qwen3"):
    return engine_of(name).generate([request])[0]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    "settings", [{}, {"num_slots": 3}, {"step_tokens": 7}, {"num_slots": 5, "step_tokens": 64}]
)
def test_a_request_among_others_gets_what_it_gets_alone(name, settings):
    requests = requests_of()
    for request, found in zip(requests, engine_of(name, **settings).generate(requests), strict=True):
        assert found == alone(request, name)


@pytest.mark.parametrize("name", SHAPES)
def test_a_cache_too_small_for_all_pauses_some_and_changes_nothing(name, monkeypatch):
    requests = requests_of(samples=3)
    wanted = [alone(request, name) for request in requests]
    engine = engine_of(name, 8, monkeypatch, num_slots=6)
    assert engine.generate(requests) == wanted
    assert engine.scheduler.num_paused > 0
    assert engine.pool.num_free == 8


def test_plain_and_other_requests_share_a_batch():
    requests = (
        requests_of(4, 1)
        + requests_of(4, 1, seed=1, top_k=3)
        + requests_of(2, 1, seed=2, presence_penalty=1.5)
    )
    for request, found in zip(requests, engine_of().generate(requests), strict=True):
        assert found == alone(request)


def test_a_prompt_begun_before_is_not_read_again():
    (request,) = requests_of(1, 1, longest=300)
    prompt = (request.prompt * 300)[:300]
    engine = engine_of()
    first = engine.generate([Request(prompt, 1)])
    assert (engine.pool.hits, engine.pool.queries) == (0, 300)
    assert engine.generate([Request(prompt, 1)]) == first
    assert engine.pool.hits == 300 // BLOCK_TOKENS * BLOCK_TOKENS


def test_what_is_read_again_after_a_pause_is_not_counted_again(monkeypatch):
    engine = engine_of(num_blocks=8, monkeypatch=monkeypatch, num_slots=6)
    requests = requests_of(samples=3)
    engine.generate(requests)
    assert engine.scheduler.num_paused > 0
    assert engine.pool.queries == 3 * sum(len(request.prompt) for request in requests)


def test_the_samples_of_a_prompt_read_it_once():
    engine = engine_of()
    engine.generate([Request((5,) * 100, 1, 16)])
    assert engine.pool.hits == 15 * 99


def test_the_likeliest_are_reported_beside_each_token():
    (request,) = requests_of(1, 1, top_log_probs=3)
    (completion,) = alone(request)
    assert len(completion.alternatives) == len(completion.tokens)
    for token, log_prob, beside in zip(
        completion.tokens, completion.log_probs, completion.alternatives, strict=True
    ):
        assert list(beside.log_probs) == sorted(beside.log_probs, reverse=True)
        assert log_prob <= beside.log_probs[0]
        assert token not in beside.tokens or log_prob == beside.log_probs[beside.tokens.index(token)]


def test_new_weights_are_answered_with_at_once_and_forget_the_old():
    model = model_of()
    engine, request = Engine(model, (), torch.float32), Request((3,) * 100, 1, 2, Sampling(max_tokens=40))
    engine.generate([request])
    for parameter in model.parameters():
        parameter.mul_(1.3)
    engine.load_weights(model)
    found = engine.generate([request])
    assert [completion.tokens for completion in found[0]] == [
        c.tokens for c in Engine(model, (), torch.float32).generate([request])[0]
    ]
    assert {completion.weights_version for completion in found[0]} == {1}
    assert engine.pool.hits == 2 * 99


def test_a_completion_tells_which_weights_drew_which_of_its_tokens():
    model = model_of()
    engine = Engine(model, (), torch.float32)
    sampling = Sampling(max_tokens=20)
    early, late = (engine.submit(Request((3, key), key, sampling=sampling))[0] for key in (1, 2))
    engine.load_weights(model)  # none has a token
    for _ in range(4):
        engine.step(at_once=1)
    engine.load_weights(model)
    engine.load_weights(model)  # nobody was drawn a token by the second
    cut = engine.cancel(late)
    told = finished(engine)[early]
    count = len(cut.tokens)
    assert 0 < count < 20
    assert (told.weights_version, told.drawn_by) == (3, ((0, 1), (count, 3)))
    assert (cut.weights_version, cut.drawn_by) == (3, ((0, 1),))
    (whole,) = engine.generate([Request((3, 1), 1, sampling=sampling)])[0]
    assert (whole.weights_version, whole.drawn_by) == (3, ())
    assert told.tokens == whole.tokens


def test_cancelling_frees_at_once():
    engine = engine_of(num_slots=2)
    answers = [engine.submit(request)[0] for request in requests_of(4, 1)]
    engine.step()
    for answer in answers:
        completion = engine.cancel(answer)
        assert completion is not None
        assert completion.finish_reason == "cancelled"
        engine.scheduler.check()
    assert engine.is_idle
    assert engine.pool.num_free == engine.pool.num_blocks
    assert engine.cancel(answers[0]) is None


def alike(count=5, shared=200, own=30):
    """Prompts of which three whole blocks are the same."""
    rows = some_tokens(model_of().config, count + 1, shared, 9).tolist()
    return [
        Request((*rows[0], *row[:own]), i, sampling=Sampling(max_tokens=5)) for i, row in enumerate(rows[1:])
    ]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("settings", [{}, {"step_tokens": 50}, {"num_slots": 2}])
def test_what_prompts_begin_with_is_read_once_though_they_come_together(name, settings):
    requests = alike()
    engine = engine_of(name, **settings)
    found = engine.generate(requests)
    assert engine.pool.hits == 4 * 3 * BLOCK_TOKENS
    assert found == [alone(request, name) for request in requests]
    engine.scheduler.check()


def test_who_waits_for_a_reader_that_is_cancelled_reads_for_itself():
    requests = alike()
    engine = engine_of(step_tokens=50)
    answers = [engine.submit(request, index)[0] for index, request in enumerate(requests)]
    engine.step()
    assert engine.slots.taken == [0]
    assert engine.scheduler.num_waiting == 4
    engine.cancel(answers[0])
    finished = {}
    while not engine.is_idle:
        finished |= {answer.index: [completion] for answer, completion in engine.step()}
        engine.scheduler.check()
    assert finished == {index: alone(requests[index]) for index in range(1, 5)}


def test_clients_are_served_in_turn():
    engine = engine_of(num_slots=1)
    for number, client in enumerate("aaab"):
        engine.submit(Request((number + 1,), 0, sampling=Sampling(max_tokens=2), client=client), number)
    order = []
    while not engine.is_idle:
        order += [answer.index for answer, _ in engine.step()]
    assert order == [0, 3, 1, 2]


def first_tokens(engine, most_steps=200):
    """The number of the step in which each answer, by its index, had its first token."""
    told, number = {}, 0
    while not engine.is_idle and number < most_steps:
        number += 1
        engine.step(lambda index, sample, token, number=number: told.setdefault(index, number))
        engine.scheduler.check()
    return told


def test_a_short_prompt_does_not_wait_for_another_clients_long_ones():
    engine = engine_of(num_slots=4, step_tokens=20)
    engine.reserve(4, 310)
    for index in range(3):
        engine.submit(Request((index + 1,) * 300, 0, sampling=Sampling(max_tokens=2), client="a"), index)
    engine.submit(Request((9,) * 10, 0, sampling=Sampling(max_tokens=2), client="b"), 3)
    told = first_tokens(engine)
    assert told[3] == 2
    assert (
        told[0] < told[1] < told[2] <= 3 * 300 // 20 + 2
    )  # the others lose what was read for it, and no more


def test_clients_with_prompts_without_end_read_in_turn():
    engine = engine_of(num_slots=3, step_tokens=20)
    engine.reserve(3, 410)
    for index, client in enumerate("abc"):
        engine.submit(Request((index + 1,) * 400, 0, sampling=Sampling(max_tokens=1), client=client), index)
    for _ in range(6):
        engine.step()
    assert [engine.slots.at(slot).num_computed for slot in range(3)] == [40, 40, 40]


def test_a_newcomer_does_not_overtake_a_prompt_that_is_half_read():
    engine = engine_of(num_slots=2, step_tokens=20)
    engine.reserve(2, 210)
    engine.submit(Request((1,) * 10, 0, sampling=Sampling(max_tokens=1)), 0)
    engine.submit(Request((2,) * 200, 0, sampling=Sampling(max_tokens=1)), 1)
    engine.step()
    for index in (2, 3, 4):  # the first slot is free again, and again
        engine.submit(Request((index + 1,) * 100, 0, sampling=Sampling(max_tokens=1)), index)
    told = first_tokens(engine)
    assert told[1] < told[2] < told[3] < told[4]


def beside_a_large_one(monkeypatch):
    """Eight blocks are held by as many short requests, many more wait, and another client asks for four blocks."""
    engine = engine_of(num_blocks=8, monkeypatch=monkeypatch, num_slots=8)
    engine.reserve(8, 250)
    for number in range(60):
        sampling = Sampling(max_tokens=4 + number % 5)
        engine.submit(Request((1 + number,) * 40, 0, sampling=sampling, client="short"), number)
    engine.step(at_once=1)
    (large,) = engine.submit(Request((90,) * 200, 0, sampling=Sampling(max_tokens=2), client="large"), -1)
    return engine, large


def test_who_needs_many_blocks_is_not_passed_over_for_ever(monkeypatch):
    engine, _ = beside_a_large_one(monkeypatch)
    order = []
    while not engine.is_idle:
        order += [answer.index for answer, _ in engine.step(at_once=1)]
        engine.scheduler.check()
    assert sorted(order) == list(range(-1, 60))
    assert order.index(-1) < 40
    assert not engine.scheduler._passed


def test_the_room_that_is_kept_for_who_is_cancelled_is_others_again(monkeypatch):
    engine, large = beside_a_large_one(monkeypatch)
    while len(engine.slots.taken) == 8:
        engine.step(at_once=1)
        engine.scheduler.seat()
    assert large not in engine.slots.sequences
    assert engine.scheduler.num_waiting > 20
    engine.cancel(large)
    engine.scheduler.seat()
    assert len(engine.slots.taken) == 8
    assert len(finished(engine)) > 20


def test_a_client_finds_only_what_it_has_asked_itself():
    """Else how fast an answer comes, and its count of cached tokens, would tell what others have asked."""
    engine = engine_of(num_slots=2)

    def found(client):
        (answer,) = engine.submit(
            Request((*range(90), *range(60)), 0, sampling=Sampling(max_tokens=1), client=client)
        )
        while not engine.is_idle:
            engine.step()
            engine.scheduler.check()
        return answer.num_found

    clients = ("mina", "mina", "juno", "juno", "", "")
    assert [found(client) for client in clients] == [0, 128, 0, 128, 0, 128]


def test_a_request_that_no_cache_could_hold_is_refused(monkeypatch):
    engine = engine_of("qwen3", 2, monkeypatch)
    with pytest.raises(InputError, match="more cache than there is room for"):
        engine.generate([Request((1,) * 200, 0)])
    engine.generate([Request((1,) * 20, 0)])


@pytest.mark.parametrize("name", SHAPES)
def test_a_long_mixed_day_ends_with_every_block_free(name, monkeypatch):
    """Requests, cancellations and new weights at random; what ends untouched is what it is alone."""
    draw = random.Random(3)
    model = model_of(name)
    monkeypatch.setattr(Engine, "_most_blocks", lambda self: 12)
    engine = Engine(model, (), torch.float32, num_slots=5, step_tokens=50)
    waiting = requests_of(60, 1, seed=4, longest=200)
    engine._make_ready([Request((1,) * 200, 0, 5, Sampling(max_tokens=100))])
    running, finished = {}, {}
    while waiting or running:
        if waiting and draw.random() < 0.5:
            index = len(waiting) - 1
            running[index] = engine.submit(waiting.pop(), index)[0], engine.weights_version
        for answer, completion in engine.step():
            finished[answer.index] = answer.request, completion
            del running[answer.index]
        engine.scheduler.check()
        if running and draw.random() < 0.1:
            engine.cancel(running.pop(draw.choice(list(running)))[0])
    assert engine.pool.num_free == engine.pool.num_blocks
    assert len(finished) > 30
    for request, completion in list(finished.values())[:15]:
        assert completion == alone(request, name)[0]


def test_the_pool_forgets_what_was_used_longest_ago():
    pool = BlockPool(3)
    blocks = [pool.take() for _ in range(3)]
    for number, block in enumerate(blocks):
        pool.publish(block, bytes([number]))
        pool.release([block])
    assert pool.take() == blocks[0]
    assert pool._known == {b"\1": blocks[1], b"\2": blocks[2]}


def test_a_block_that_is_held_is_found_rather_than_its_equal_that_is_not():
    pool = BlockPool(3)
    old, new, other = (pool.take() for _ in range(3))
    for block in old, new:
        pool.publish(block, b"same")
    assert pool._known == {b"same": old}
    pool.release([old])
    pool.publish(new, b"same")
    assert pool._known == {b"same": new}
    assert pool.take() == old
    pool.check([[old], [new], [other]])


def test_who_is_submitted_after_the_other_is_answered_beside_them():
    engine = engine_of(num_slots=4)
    engine.reserve(4, 128)
    for key in range(4):
        engine.submit(Request((5, 6, 7), key, 1, Sampling(max_tokens=100)))
    engine.step(at_once=1)
    assert len(engine.slots.taken) == 4
    assert engine.scheduler.num_waiting == 0


def test_a_small_model_reads_many_tokens_in_a_step():
    engine = engine_of()
    engine.reserve(90, 41)
    for number in range(90):
        engine.submit(Request((1 + number,) * 40, number, sampling=Sampling(max_tokens=1)))
    assert len(engine.step()) == 90  # 3,600 tokens
