"""Prices of what a run used, and what stands in for energy that nobody measured; both are said wherever used."""

import math
import tomllib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from clearseek.config.errors import InputError

_J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Tariff:
    """Prices in `currency`. As it stands it is an assumption: rough rents, and no price of electricity beside them."""

    currency: str = "USD"
    cpu_hour: float = 0.05  # of one busy core
    gpu_hour: float = 2.0  # of one accelerator; what DeepSeek reckons with (arXiv:2412.19437, table 1)
    kwh: float = 0.0
    core_watts: float = 10.0  # of one busy core at the plug, where RAPL can't be read
    gpu_watts: float = (
        700.0  # of one accelerator at its limit (H100, H800, H200 SXM), where NVML doesn't tell
    )
    assumed: bool = True

    @classmethod
    def read(cls, text: str) -> Self:
        """Prices as `cpu_hour=0.05,gpu_hour=2,kwh=0.2,currency=EUR`, or a TOML file of such keys.

        A price that isn't stated is then nothing, so that money is of what is stated only. Raises InputError.
        """
        given = _from_file(Path(text)) if text.endswith(".toml") else _from_words(text)
        known = {field.name for field in fields(cls)} - {"assumed"}
        for key, value in given.items():
            if key not in known:
                raise InputError(f"tariff: unknown key {key!r}; known keys: {', '.join(sorted(known))}")
            _check(key, value)
        nothing = cls(cpu_hour=0.0, gpu_hour=0.0, assumed=False)
        return replace(nothing, **given)

    def stated(self) -> dict[str, Any]:
        """The prices, and whether they are the user's or assumed."""
        return asdict(self)

    def priced(self, used: dict[str, Any]) -> dict[str, Any]:
        """`used` (seconds and joules) with `kwh`, how it is known, and `money`."""
        cpu, cpu_method = _kwh(used["cpu_joules"], used["cpu_seconds"], self.core_watts, "RAPL", "busy core")
        gpu, gpu_method = _kwh(used["gpu_joules"], used["gpu_seconds"], self.gpu_watts, "NVML", "accelerator")
        methods = [cpu_method] + ([gpu_method] if used["gpu_seconds"] else [])
        hours = used["cpu_seconds"] * self.cpu_hour + used["gpu_seconds"] * self.gpu_hour
        return used | {
            "kwh": cpu + gpu,
            "kwh_method": "; ".join(methods),
            "money": hours / 3600 + (cpu + gpu) * self.kwh,
        }


def _kwh(joules: float | None, seconds: float, watts: float, counter: str, what: str) -> tuple[float, str]:
    if joules is not None:
        return joules / _J_PER_KWH, f"measured by {counter}, all that ran there"
    return seconds * watts / _J_PER_KWH, f"estimated at {watts:g} W a {what}"


def _from_words(text: str) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for word in text.split(","):
        key, equals, value = word.partition("=")
        if not equals:
            raise InputError(
                f"tariff: {word!r} is no price; write cpu_hour=0.05,kwh=0.2,currency=EUR, or a .toml"
            )
        given[key.strip().replace("-", "_")] = _value(key.strip(), value.strip())
    return given


def _value(key: str, value: str) -> Any:
    if key == "currency":
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"tariff: {path} cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"tariff: {path} is not TOML ({error})") from None


def _check(key: str, value: Any) -> None:
    if key == "currency":
        if not isinstance(value, str) or not value or len(value) > 8:
            raise InputError(f"tariff: currency is {value!r}; write a short name such as USD")
        return
    right = isinstance(value, int | float) and not isinstance(value, bool)
    if not right or not math.isfinite(value) or value < 0:
        raise InputError(f"tariff: {key} is {value!r}; it must be a number of at least 0")
