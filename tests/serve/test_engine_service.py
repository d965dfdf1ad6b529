"""The engine's thread: how many tokens a call computes, and when streams are told of them."""

import asyncio
from time import monotonic

import pytest

from clearseek.engine.request import Request, Sampling
from clearseek.serve import engine_loop
from tests.serve.live import tiny_served


@pytest.fixture
def service(tokenizer):
    """One with nothing to do."""
    service = tiny_served(tokenizer).service
    yield service
    service.close(10)


def test_as_many_tokens_at_once_as_take_so_long_as_is_wanted(service):
    for _ in range(9):
        service.line.loop._pace(0.002 * service.line.loop._at_once, service.line.loop._at_once, 0.02)
    assert service.line.loop._at_once == 10
    service.line.loop._pace(0.1, 10, 0.02)
    assert service.line.loop._at_once == 2
    service.line.loop._pace(5.0, 2, 0.02)
    assert service.line.loop._at_once == 1


def test_a_call_that_read_prompts_says_nothing_of_how_long_tokens_take(service):
    service.line.loop._at_once = 8
    service.line.loop._pace(0.5, 1, 0.02)
    service.line.loop._pace(0.000001, 0, 0.02)
    assert service.line.loop._at_once == 8


def test_a_first_token_is_told_at_once_and_the_others_together(service, monkeypatch):
    """Streams that were told of something wait their time; one that was told of nothing does not."""
    monkeypatch.setattr(engine_loop, "_TELL_SECONDS", 10.0)
    monkeypatch.setattr(engine_loop, "_MOST_TELL_SECONDS", 10.0)
    service.line.loop._told_at = monotonic()
    request = Request((3, 4, 5), 1, 1, Sampling(max_tokens=64, ignore_eos=True))

    async def ask() -> list[int]:
        return [len(delta.tokens) async for delta in await service.submit(request)]

    first, *others = asyncio.run(ask())
    assert first < 64
    assert len(others) == 1
    assert first + others[0] == 64


def test_text_is_what_the_tokens_say_however_they_were_told(service, tokenizer, monkeypatch):
    monkeypatch.setattr(engine_loop, "_TELL_SECONDS", 0.0)
    requests = [Request((3, 4, 5 + n), n, 1, Sampling(max_tokens=48, ignore_eos=True)) for n in range(6)]

    async def ask(request: Request) -> tuple[list[int], str]:
        tokens, text = [], ""
        async for delta in await service.submit(request):
            tokens += delta.tokens
            text += delta.text
        return tokens, text

    async def all_of_them() -> list[tuple[list[int], str]]:
        return await asyncio.gather(*map(ask, requests))

    for tokens, text in asyncio.run(all_of_them()):
        assert text == tokenizer.decode(tokens, skip_special=True)
