"""An answer that the server owns: read, left, read again from where one was, stopped."""

import asyncio

import pytest

from clearseek.serve.generations import Generations
from clearseek.serve.pieces import Pieces
from tests.serve.live import tiny_served


@pytest.fixture
def model(tokenizer):
    model = tiny_served(tokenizer)
    yield model
    model.service.close(10)


def tokens_of(pieces):
    """Each once, though the last piece may come again."""
    once = {piece.num_tokens: piece.tokens for piece in pieces if piece.tokens}
    return [token for _, tokens in sorted(once.items()) for token in tokens]


async def begun(model, max_tokens=40):
    prompt = await model.encode([{"role": "user", "content": "12 + 5?"}])
    request = model.request(prompt, max_tokens, seed=3, ignore_eos=True)
    pieces = Pieces(await model.submit(request), model.tokenizer, True, len(prompt))
    return Generations(), pieces


def test_who_comes_back_reads_on_where_they_were(model):
    async def check():
        generations, pieces = await begun(model)
        generation = generations.start(pieces)
        first = [piece async for piece in generation.attach()]
        for read in range(len(first)):
            rest = [piece async for piece in generations.get(generation.id).attach(first[read].num_tokens)]
            assert tokens_of(first[: read + 1] + rest) == tokens_of(first)
        assert first[-1].num_tokens == 40
        assert first[-1].completion.finish_reason == "length"

    asyncio.run(check())


def test_leaving_does_not_stop_it_and_stop_does(model):
    async def check():
        generations, pieces = await begun(model, max_tokens=200)
        generation = generations.start(pieces)
        async for _ in generation.attach():
            break
        assert generations.running() == [generation]
        generation.stop()
        last = [piece async for piece in generation.attach()][-1]
        assert last.completion.finish_reason in ("cancelled", "length")
        assert generation.is_over

    asyncio.run(check())
