"""What all bodies of requests have in common: exact types, finite numbers, and no field that nobody reads."""

from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator


class Wire(BaseModel):
    """A JSON object from a client. A field that is unknown is an error, unless it is null: then nothing is asked."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None or name in cls.model_fields}
