"""A decoder's matrices for the kernels: out of its parameters, or out of the file that still has them."""

from dataclasses import dataclass, field

from torch import Tensor

from clearseek.engine.formats import Format, Quantised, lay_out, lay_out_quantised
from clearseek.engine.mixed_formats import Formats
from clearseek.model.decoder import Decoder
from clearseek.model.huge_pages import HugePages
from clearseek.model.unread import Half

_BLOCK = 32  # inputs that share a scale in a file
Parts = tuple[Tensor, ...]


@dataclass
class Matrix:
    """One matrix, or several one behind the other, laid out in a format."""

    laid: Tensor
    outputs: int
    inputs: int
    form: Format


@dataclass
class Matrices:
    """Lays out the matrices of a model whose weights are wanted in `form`."""

    model: Decoder
    form: Format | Formats
    memory: HugePages = field(default_factory=HugePages)

    def __post_init__(self) -> None:
        self._names = {id(parameter): name for name, parameter in self.model.named_parameters()}

    def of(self, weight: Tensor, form: Format, count: int = 1, half: Half | None = None) -> list[Matrix]:
        """Of a weight [..., outputs, inputs] its `count` equal parts by outputs, in `form`.

        What a file keeps in the very format, or in Q4_0 for int4, is laid out as it is there. A latent's map is asked
        for by its halves, keys [H, R, nope] and values [H, value, R].
        """
        form, parts = self._parts(weight, form, half)
        found = []
        for pieces in zip(*(part.chunk(count, -2) for part in parts), strict=True):
            if len(pieces) == 1:
                laid = lay_out(pieces[0], form, self.memory)
            else:
                laid = lay_out_quantised(Quantised(*pieces), form, self.memory)
            found.append(Matrix(laid, pieces[0].shape[-2], pieces[0].shape[-1], form))
        return found

    def kind(self, weight: Tensor, half: Half | None = None) -> Format | None:
        """The format of whole numbers that a file keeps a weight in, where the kernels can take it from there."""
        stored, name = self.model.stored, self._names.get(id(weight))
        if stored is None or name is None or name not in stored or self.form.group != _BLOCK:
            return None
        kind = stored.kind(name, half)
        return None if kind is None else Format(kind, _BLOCK)

    def rows(self, weight: Tensor) -> Tensor:
        """A weight as plain numbers [outputs, inputs], the parameter itself where it is one."""
        stored, name = self.model.stored, self._names.get(id(weight))
        if stored is not None and name is not None and name in stored:
            return stored.floats(name)
        return weight.detach()

    def floats(self, weight: Tensor, half: Half) -> Tensor:
        """Half of a latent's map that is still in the file, as plain numbers."""
        assert self.model.stored is not None
        return self.model.stored.floats(self._names[id(weight)], half)

    def _parts(self, weight: Tensor, form: Format, half: Half | None) -> tuple[Format, Parts]:
        """The format that it gets, and its numbers, or whole numbers and scales."""
        stored, name = self.model.stored, self._names.get(id(weight))
        if stored is None or name is None or name not in stored:
            return form, (weight.detach(),)
        kind = self.kind(weight, half)
        if self.form.is_as_stored and form.is_quantised:
            form = kind or Format("bfloat16")
        if kind is not None and (form == kind or (form.name, kind.name) == ("int4", "q4_0")):
            return kind, stored.blocks(name, half)
        return form, (stored.floats(name, half),)
