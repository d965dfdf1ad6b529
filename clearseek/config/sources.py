"""Where a recipe's texts and problems come from, what is stated of their rights, and what is left out of them."""

import datetime
import difflib
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from clearseek.config.model import Table

# Open licences of texts and data, as SPDX spells them (spdx.org/licenses); others are taken as they are written.
_KNOWN_LICENCES = (
    "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CC0-1.0", "CDLA-Permissive-1.0", "CDLA-Permissive-2.0", "CDLA-Sharing-1.0", "GFDL-1.3-only", "MIT", "ODC-By-1.0",
    "ODbL-1.0", "PDDL-1.0", "Unlicense",
)  # fmt: skip
_LICENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.\-]*\+?(?: (?:AND|OR|WITH) [A-Za-z0-9][A-Za-z0-9.\-]*\+?)*")
_DATE = re.compile(r"\d{4}(?:-(?:0[1-9]|1[0-2])(?:-(?:0[1-9]|[12]\d|3[01]))?)?")


def _licence(text: str) -> str:
    """An SPDX id or expression; anything else with the id that it may mean."""
    joined = re.sub(r"[\s_]+", "-", text.strip())
    as_written = next((known for known in _KNOWN_LICENCES if known.lower() == joined.lower()), None)
    if _LICENCE.fullmatch(text) and as_written in (None, text):
        return text
    near = [as_written] if as_written else difflib.get_close_matches(joined, _KNOWN_LICENCES, 1)
    hint = f"did you mean {near[0]!r}?" if near else "for a licence without one write LicenseRef-NAME"
    raise ValueError(f"{text!r} is no SPDX id, such as CC-BY-4.0 (spdx.org/licenses); {hint}")


def _date_text(value: Any) -> Any:
    """A date of TOML as text."""
    return value.isoformat() if type(value) is datetime.date else value


def _day(text: str) -> str:
    if not _DATE.fullmatch(text):
        raise ValueError(f"{text!r} is no date; write 2026-11-29, or 2026-11 or 2026 where no more is known")
    return text


SpdxLicence = Annotated[str, AfterValidator(_licence)]
Language = Literal["en", "ko", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "ko", "zh")


class Stated(Table):
    """What a recipe's author states of texts that came from elsewhere; what is left out is recorded as not stated."""

    licence: SpdxLicence | None = Field(default=None, description="SPDX id, such as CC-BY-4.0")
    origin: str | None = Field(
        default=None, min_length=1, description="where it was found: an address, a name"
    )
    collected: Annotated[str, AfterValidator(_day), BeforeValidator(_date_text)] | None = Field(
        default=None, description="when it was: a day, a month or a year"
    )
    opt_out: str | None = Field(
        default=None, min_length=1, description="how the wish not to be used for training was heeded"
    )


class Filters(Table):
    """What is left out of a source, in this order; each rule looks at what those before it left."""

    removed: list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]] = Field(
        default=[],
        description="documents by the SHA-256 of their words, as `clearseek data remove` says; no sample is kept",
    )
    min_chars: int = Field(default=0, ge=0)
    max_chars: int = Field(default=0, ge=0, description="0: no bound")
    languages: list[Literal["en", "ko", "zh", "other", "none"]] | None = Field(
        default=None, min_length=1, description="main language, by script; none: no words at all"
    )
    duplicates: bool | Literal["near"] = Field(
        default=False,
        description="true: drop what was there before, character by character; near: also where 8 in 10 of its rows "
        "of 8 words were",
    )
    contamination: bool = Field(
        default=False, description="drop what holds an item of an evaluation, or 13 words in a row of one"
    )
    personal_data: Literal["keep", "mask", "drop"] = "keep"

    @model_validator(mode="after")
    def _bounds_leave_room(self) -> Self:
        if self.max_chars and self.max_chars < self.min_chars:
            raise ValueError(f"max_chars ({self.max_chars}) is below min_chars ({self.min_chars})")
        return self


class Problems(Stated):
    """Where problems with checkable answers come from: generated families, or a file of the user's own."""

    tasks: list[str] | None = Field(
        default=None, description="families by name; default: all, unless path is set"
    )
    languages: list[Language] = list(LANGUAGES)
    levels: list[int] = [1, 2]
    path: str | None = Field(
        default=None, description="JSON lines with prompt, answer, verifier; or GSM8K's layout"
    )
    gym: list[str] | None = Field(default=None, description="reasoning-gym datasets (extra `gym`)")
    held_out_path: str | None = Field(
        default=None, description="test file; default: split `path` by content hash"
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("tasks", "path", "gym") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"give one of tasks, path and gym, not {' and '.join(given)}")
        if self.held_out_path is not None and self.path is None:
            raise ValueError("held_out_path needs path")
        return self


class DataSource(Stated):
    """One source of documents or examples, and its share of the mixture.

    Exactly one of `problems`, `path`, `dataset` and `stage` says where it comes from.
    """

    problems: Problems | None = None
    path: str | None = Field(default=None, description="folder of .txt/.md, or a .jsonl or .parquet file")
    dataset: str | None = Field(
        default=None, description="Hugging Face dataset, downloaded when the stage runs"
    )
    stage: str | None = Field(default=None, description="the examples that an earlier reject stage kept")
    count: int = Field(default=0, ge=0, description="documents to take; 0: all (problems need a count)")
    styles: dict[Literal["worked", "bare", "foreign"], float] = Field(
        default={"worked": 1.0},
        description="shares of worked solutions, bare answers and foreign-language ones",
    )
    teacher: str | None = Field(
        default=None, min_length=1, description="the model that wrote the rows, where one did: its name"
    )
    layout: Literal["chat", "document"] = Field(
        default="chat", description="chat format, or plain text to learn whole"
    )
    hold_out_every: int = Field(default=0, ge=0, description="every N-th document is kept for bits per byte")
    ignored_fields: list[str] = Field(
        default=[],
        description="fields of a path's or dataset's rows to leave out; any other unknown one is an error",
    )
    filters: Filters | None = Field(default=None, description="what to leave out; default: nothing")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [n for n in ("problems", "path", "dataset", "stage") if getattr(self, n) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a data source needs exactly one of problems, path, dataset and stage, got {given}"
            )
        if self.ignored_fields and self.path is None and self.dataset is None:
            raise ValueError("ignored_fields belongs to path and dataset")
        if self.teacher is not None and self.path is None and self.dataset is None:
            raise ValueError("teacher belongs to path and dataset: of what a run makes itself it is known")
        if self.problems is not None and (self.problems.path is not None or self.problems.gym is not None):
            raise ValueError(
                "problems of a data source are generated: give tasks; for a file's rows give path"
            )
        if self.problems is not None and not self.count:
            raise ValueError("a source of problems needs count, the number of documents to generate")
        if not self.styles or min(self.styles.values()) < 0 or sum(self.styles.values()) <= 0:
            raise ValueError(f"styles must be shares above 0, got {self.styles}")
        return self
