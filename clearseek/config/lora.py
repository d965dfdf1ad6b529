"""The typed table of a low-rank adapter (LoRA, arXiv:2106.09685): which maps learn a product of thin factors."""

import math
from typing import Any, Self

from pydantic import Field, model_validator

from clearseek.config.model import Table

ALL_LINEAR = "all-linear"
MAX_RANK = 2**16
_OWN = {"rank": 16, "alpha": 32.0, "targets": [ALL_LINEAR], "rslora": False}


class Lora(Table):
    """Train `B A · alpha / rank` beside frozen weights: new factors, or those of an `adapter` to go on with.

    Targets are names of published modules, whole or from a dot on: `q_proj`, `self_attn.o_proj`, `experts.3.down_proj`,
    or `experts.down_proj` of all experts of a layer together (PEFT's `target_parameters`); `all-linear` stands for
    every linear map of the layers, experts' too, but for routers.
    """

    adapter: str | None = Field(
        default=None, description="directory of an adapter in PEFT's format, whose settings are then taken"
    )
    rank: int | None = Field(default=None, ge=1, le=MAX_RANK, description="of the product; default 16")
    alpha: float | None = Field(default=None, gt=0, description="default 32")
    targets: list[str] | None = Field(default=None, min_length=1, description="default: all-linear")
    rslora: bool | None = Field(
        default=None, description="divide alpha by √rank (arXiv:2312.03732); default: by rank"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """What is left out stands in the resolved recipe, but for an adapter that brings its own."""
        if not isinstance(values, dict) or values.get("adapter") is not None:
            return values
        return {**_OWN, **{key: value for key, value in values.items() if value is not None}}

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in _OWN if getattr(self, name) is not None]
        if self.adapter is not None and given:
            raise ValueError(f"{given[0]} is the adapter's own; leave it out where adapter is given")
        return self

    @property
    def scale(self) -> float:
        """What the product of the factors is multiplied by."""
        assert self.rank is not None
        assert self.alpha is not None
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)
