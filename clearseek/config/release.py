"""What the author of a recipe states of the model that a run of it gives: whose it is, and its licences."""

from pydantic import Field

from clearseek.config.model import Table
from clearseek.config.sources import SpdxLicence


class Release(Table):
    """Stated for the papers of a run (`clearseek papers`); what is left out is not stated, never guessed."""

    weights: SpdxLicence | None = Field(
        default=None, description="licence of the weights, an SPDX id or expression"
    )
    documents: SpdxLicence | None = Field(
        default=None, description="licence of cards, reports and checklists"
    )
    provider: str | None = Field(default=None, min_length=1, description="who publishes the model")
    contact: str | None = Field(default=None, min_length=1, description="where to write to them")
