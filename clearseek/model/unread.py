"""Weights that are still in a file when a decoder is there already: see `gguf.blocks`."""

from typing import Literal, Protocol

from torch import Tensor

Kind = Literal["int8", "q4_0"]  # as `engine/formats.py` names them
Half = Literal["latent_keys", "latent_values"]  # of the map out of a latent, which GGUF keeps as two


class UnreadWeights(Protocol):
    """Matrices by the names of the decoder's parameters, which are on the meta device."""

    def __contains__(self, name: str) -> bool:
        """Whether a parameter is one of them."""

    @property
    def kinds(self) -> list[Kind]:
        """In which whole numbers they are kept, those of most bytes first."""

    def kind(self, name: str, half: Half | None = None) -> Kind | None:
        """The same of one parameter; None: it is kept in floats, or in several types."""

    def blocks(self, name: str, half: Half | None = None) -> tuple[Tensor, Tensor]:
        """Whole numbers [..., outputs, inputs] from 0 on (uint8) and scales [..., outputs, inputs / 32] in fp16."""

    def floats(self, name: str, half: Half | None = None) -> Tensor:
        """The same as numbers [..., outputs, inputs] in fp32."""
