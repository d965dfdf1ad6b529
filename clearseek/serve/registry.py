"""The models of a server, by name."""

from collections.abc import Iterable, Mapping

from clearseek.serve.errors import ApiError
from clearseek.serve.served_model import ServedModel

# names of DeepSeek's service, of now and of old; the server's first model answers to them
DEEPSEEK_NAMES = (
    "deepseek-flash", "deepseek-v4-pro", "deepseek-v4-flash", "deepseek-chat", "deepseek-reasoner",
)  # fmt: skip


class Registry:
    """Finds the model that a request names; `aliases` are other names of some."""

    def __init__(self, models: Iterable[ServedModel], aliases: Mapping[str, str] | None = None) -> None:
        self._models = {model.name: model for model in models}
        self._aliases = dict.fromkeys(DEEPSEEK_NAMES, self.names[0]) | dict(aliases or {})

    @property
    def names(self) -> list[str]:
        """All, without aliases, the default first."""
        return list(self._models)

    def loaded(self) -> list[ServedModel]:
        """Those in memory."""
        return list(self._models.values())

    async def get(self, name: str | None) -> ServedModel:
        """The model of that name, the first where none is given; `ApiError` where there is none."""
        if name is None:
            name = self.names[0]
        elif name not in self._models:
            name = self._aliases.get(name, name)
        if name not in self._models:
            raise ApiError(
                404,
                f"there is no model {name!r}; GET /v1/models lists: {', '.join(self.names)}",
                param="model",
                code="model_not_found",
            )
        return self._models[name]

    def close(self, seconds: float) -> None:
        """End all of them."""
        for model in self._models.values():
            model.service.close(seconds)
