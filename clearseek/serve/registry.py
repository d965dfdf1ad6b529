"""The models of a server, by name: read when they are asked for, given up when another one needs their memory.

One is opened at a time. Who asks for a model that has no room waits until others have ended their answers; who asks
for an open one meanwhile waits behind it, so that no model keeps the others out.
"""

import asyncio
import gc
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from clearseek.config.errors import InputError, RunError
from clearseek.serve.errors import ApiError, Busy, LacksMemory
from clearseek.serve.room import available_bytes
from clearseek.serve.served_model import ServedModel

_LOG = logging.getLogger(__name__)
# names of DeepSeek's service, of now and of old; the server's first model answers to them
DEEPSEEK_NAMES = (
    "deepseek-flash", "deepseek-v4-pro", "deepseek-v4-flash", "deepseek-v4-flash-vision-exp",
    "deepseek-chat", "deepseek-reasoner",
)  # fmt: skip
_CLOSE_SECONDS, _OPENING_SECONDS = 10.0, 600.0
_LOOK_SECONDS = 0.02  # between two looks whether somebody has ended


@dataclass(frozen=True)
class Source:
    """A model that can be opened; `num_bytes` is about what it takes in memory."""

    name: str
    open: Callable[[], ServedModel]
    num_bytes: int
    root: str = ""  # the file or directory that it is read from


class Registry:
    """Finds the model that a request names; `aliases` are other names of some. InputError for one that can't be.

    `models` are open and stay so; `sources` are opened on demand, at most `most_open` of them at a time. Where memory
    lacks for one, those that were not asked for the longest go first, but none that is answering: it is waited for,
    `patience_seconds` at most.
    """

    def __init__(
        self,
        models: Iterable[ServedModel] = (),
        aliases: Mapping[str, str] | None = None,
        sources: Iterable[Source] = (),
        most_open: int | None = None,
        available: Callable[[str], int | None] = available_bytes,
        patience_seconds: float = 600.0,
    ) -> None:
        self._open = {model.name: model for model in models}
        self._sources = {source.name: source for source in sources}
        self._names = list(dict.fromkeys([*self._open, *self._sources]))
        self._aliases = dict.fromkeys(DEEPSEEK_NAMES, self._names[0]) | self._checked(aliases or {})
        self._most_open, self._available = most_open, available
        self._patience = patience_seconds
        self._turns: dict[str, _Turn] = {}  # of models that are asked for and wait
        self._door, self._lacks_room = asyncio.Lock(), False

    def _checked(self, aliases: Mapping[str, str]) -> dict[str, str]:
        for alias, name in aliases.items():
            if alias in self._names:
                raise InputError(f"alias {alias}: a model is called so already; choose another name")
            if name not in self._names:
                known = ", ".join(self._names[:20])
                raise InputError(
                    f"alias {alias}: there is no model {name!r} here; it has to be one of: {known}"
                )
        return dict(aliases)

    @property
    def names(self) -> list[str]:
        """All, without aliases, the default first."""
        return list(self._names)

    def loaded(self) -> list[ServedModel]:
        """Those in memory."""
        return list(self._open.values())

    def loaded_by_name(self) -> dict[str, ServedModel]:
        """The same by name."""
        return dict(self._open)

    def root_of(self, name: str) -> str:
        """The file or directory that a model is read from, "" where it is of none."""
        return self._open[name].root if name in self._open else self._sources[name].root

    def open_first(self) -> None:
        """Open the default model now, so that what is wrong with it is told before anybody asks."""
        if self._names[0] not in self._open:
            self._open[self._names[0]] = self._sources[self._names[0]].open()

    async def get(self, name: str | None) -> ServedModel:
        """The model of that name, the first where none is given; it stays open until it is released.

        `ApiError` where there is none, or no room for it.
        """
        found = self.resolve(name)
        self._forget_lost(found)
        if self.is_at_hand(found):
            self._open[found].claim()
            return self._open[found]
        if found not in self._turns:
            turn = self._turns[found] = _Turn(found)
            turn.task = asyncio.create_task(self._take(turn))
        try:
            return await self._turns[found].result(self._patience + _OPENING_SECONDS)
        except TimeoutError:
            raise Busy(f"{found} is still being opened; try again later", seconds=10) from None

    def is_at_hand(self, name: str) -> bool:
        """Whether a model, by its own name, is open, and nobody who waits for room comes first."""
        return name in self._open and not (self._lacks_room and name in self._sources)

    def close(self, seconds: float) -> None:
        """End all of them."""
        for model in self._open.values():
            model.service.close(seconds)

    def resolve(self, name: str | None) -> str:
        """A model's own name, of a name or an alias. `ApiError` where there is none."""
        if name is None:
            return self._names[0]
        found = name if name in self._names else self._aliases.get(name, name)
        if found not in self._names:
            raise ApiError(
                404,
                f"there is no model {name[:200]!r}; GET /v1/models lists: {', '.join(self._names[:20])}",
                param="model",
                code="model_not_found",
                values={"name": name[:200]},
            )
        return found

    def _forget_lost(self, name: str) -> None:
        """Let a model be opened anew whose engine has ended by itself."""
        if name in self._open and name in self._sources and self._open[name].service.is_lost:
            _LOG.warning("%s is opened anew", name)
            self._open.pop(name).service.close(0)

    async def _take(self, turn: "_Turn") -> ServedModel:
        try:
            async with self._door:
                if turn.name not in self._open:
                    self._open[turn.name] = await self._read(self._sources[turn.name])
                model = self._open[turn.name]
                model.claim(turn.num_waiting)  # before the next one in turn sees it idle
                return model
        finally:
            del self._turns[turn.name]

    async def _read(self, source: Source) -> ServedModel:
        try:
            async with asyncio.timeout(self._patience):
                await self._make_room_for(source)
        except TimeoutError:
            raise Busy(
                f"there is no memory for {source.name}: the others were answering for {self._patience:g} s",
                seconds=10,
            ) from None
        finally:
            self._lacks_room = False
        _LOG.info("opening %s", source.name)
        try:
            return await self._opened(source)
        except (
            InputError,
            RunError,
            OSError,
        ) as error:  # its files are not whole, or not of a model: no client's fault
            _LOG.warning("%s can't be opened: %s", source.name, error)
            raise ApiError(
                503,
                f"{source.name} can't be opened: {error}",
                "service_unavailable",
                code="model_not_opened",
                values={"name": source.name, "why": str(error)},
            ) from None

    async def _make_room_for(self, source: Source) -> None:
        while not self._has_room_for(source):
            if idle := self._idle():
                await self._give_up(min(idle, key=lambda model: model.used_at))
            else:
                self._lacks_room = True
                await asyncio.sleep(_LOOK_SECONDS)

    async def _opened(self, source: Source) -> ServedModel:
        """It, read; where there turns out to be no memory, once more without those that nobody needs now."""
        try:
            return await asyncio.to_thread(source.open)
        except LacksMemory:
            if not (idle := self._idle()):
                raise
            for model in idle:
                await self._give_up(model)
            return await asyncio.to_thread(source.open)

    def _idle(self) -> list[ServedModel]:
        return [model for model in self._open.values() if model.name in self._sources and model.is_idle]

    def _has_room_for(self, source: Source) -> bool:
        count = sum(name in self._sources for name in self._open)
        if self._most_open is not None and count >= self._most_open:
            return False
        device = next((model.device for model in self._open.values()), "cpu")  # all are on the same
        available = self._available(device)
        return available is None or source.num_bytes <= available or not count

    async def _give_up(self, model: ServedModel) -> None:
        _LOG.info("giving up %s", model.name)
        del self._open[model.name]
        await asyncio.to_thread(model.service.close, _CLOSE_SECONDS)
        gc.collect()


@dataclass
class _Turn:
    """Those that wait for one model."""

    name: str
    num_waiting: int = 0
    task: "asyncio.Task[ServedModel] | None" = None

    async def result(self, seconds: float) -> ServedModel:
        """The model, claimed. TimeoutError where it takes longer."""
        assert self.task is not None, "a turn is begun at once"
        self.num_waiting += 1
        try:
            return await asyncio.wait_for(asyncio.shield(self.task), seconds)
        except (asyncio.CancelledError, TimeoutError):
            self.num_waiting -= 1
            if self.task.done() and not self.task.cancelled() and self.task.exception() is None:
                self.task.result().release()
            raise
