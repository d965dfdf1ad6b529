"""A server in a thread of this process, on a free port of the loopback."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Queue

from clearseek.config.server import Server
from clearseek.engine.engine import Engine
from clearseek.serve.engine_service import EngineService
from clearseek.serve.engine_thread import ThreadLine
from clearseek.serve.keys import Keys
from clearseek.serve.registry import Registry
from clearseek.serve.run import serving
from clearseek.serve.served_model import ServedModel
from clearseek.text.tokenizer import Tokenizer
from tests.model.every_family import small
from tests.model.tiny import tiny_model

PHRASES = ("Let me check: 12 + 5 = 17.", "먼저 12 + 5 = 17 입니다.", "首先计算 12 + 5 = 17，正确。") * 20
GREEDY = {"temperature": 0.0}


def tiny_tokenizer():
    """Learned from three sentences."""
    return Tokenizer.train(PHRASES, 400)


def tiny_served(tokenizer, name="tiny", context=256, num_slots=8, most_waiting=8, **settings):
    """Random weights behind the real engine."""
    config = small("qwen3", vocab_size=tokenizer.vocab_size, max_position_embeddings=context)
    import torch

    engine = Engine(
        tiny_model(config), tokenizer.stop_ids, torch.float32, num_slots, tokenizer=tokenizer, **settings
    )
    service = EngineService(ThreadLine(engine), tokenizer, most_waiting)
    return ServedModel(name, tokenizer, service, context, {"temperature": 0.6, "top_p": 0.95})


def wait_for(condition: Callable[[], object], what: str) -> None:
    """Until it holds; after ten seconds an error says `what` is wrong."""
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError(what)


@contextmanager
def live(registry: Registry, settings: Server | None = None, keys: Keys | None = None) -> Iterator[str]:
    """The server's address, for as long as it runs."""
    settings = settings or Server(port=0)
    addresses: Queue[str | BaseException] = Queue()
    ending = threading.Event()

    async def run() -> None:
        async with serving(settings, registry, keys) as address:
            addresses.put(address)
            while not ending.is_set():
                await asyncio.sleep(0.02)

    def main() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            addresses.put(error)
            raise

    thread = threading.Thread(target=main, daemon=True)
    thread.start()
    address = addresses.get(timeout=30)
    if isinstance(address, BaseException):
        raise address
    try:
        yield address
    finally:
        ending.set()
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"
