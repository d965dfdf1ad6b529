"""One thing the doctor found in a run's records."""

from dataclasses import asdict, dataclass
from typing import Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is the matter, the numbers that say so, and what to do, naming the recipe key to change."""

    severity: Severity
    what: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.what}\n  seen: {self.evidence}\n  try:  {self.advice}"

    def to_dict(self) -> dict[str, str]:
        """The finding as JSON holds it."""
        return asdict(self)
