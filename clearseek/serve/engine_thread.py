"""The line to an engine in a thread of this process, for whoever has one already."""

import asyncio
import logging
import threading
from collections.abc import Callable

from clearseek.engine.engine import Engine
from clearseek.serve.engine_line import Hear
from clearseek.serve.engine_loop import EngineLoop
from clearseek.serve.engine_words import Counts, Order, Word

_LOG = logging.getLogger(__name__)


class ThreadLine:
    """To an engine in a thread of this process."""

    is_lost = False

    def __init__(self, engine: Engine) -> None:
        self.engine, self.loop = engine, EngineLoop(engine, self._tell)
        self.num_slots, self.hidden_size = engine.num_slots, engine.model.config.hidden_size
        self.cache_bytes = engine.cache_limit.num_bytes
        self._hear: Hear | None = None
        self._listening: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self.loop.run, name="clearseek-engine", daemon=True)
        self._thread.start()

    async def connect(self, hear: Hear, lost: Callable[[], None]) -> None:
        """As `Line`; a thread is never lost."""
        self._hear, self._listening = hear, asyncio.get_running_loop()

    def order(self, order: Order) -> None:
        """As `Line`."""
        self.loop.order(order)

    def close(self, seconds: float) -> None:
        """As `Line`."""
        self.loop.close()
        self._thread.join(seconds)

    def _tell(self, words: list[Word], counts: Counts) -> None:
        assert self._listening is not None, "somebody asked from a loop"
        assert self._hear is not None
        try:
            self._listening.call_soon_threadsafe(self._hear, words, counts)
        except RuntimeError:
            _LOG.debug("the event loop is closed")
