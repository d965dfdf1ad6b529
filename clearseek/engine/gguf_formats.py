"""The engine's formats by part of a model as types of a GGUF file's tensors: int8 is Q8_0 there, int4 Q4_0."""

import re
from collections.abc import Callable

from clearseek.config.errors import InputError
from clearseek.engine.formats import NAMES
from clearseek.engine.mixed_formats import Formats, part_names, read_formats
from clearseek.model.decoder import Decoder

_TYPES = {"float32": "f32", "bfloat16": "bf16", "int8": "q8_0", "int4": "q4_0"}
_BLOCK = 32  # weights that share a scale in both
_PLACE = re.compile(r"layers\.\d+\.(attention|feed_forward)(?=\.)")
_ROUTED = re.compile(r"\.feed_forward\.(gate_up|down)(_bias)?$")  # of all experts together


def is_format(text: str) -> bool:
    """Whether this is meant as `read_formats` takes it."""
    return re.split("[,:]", text)[0] in NAMES


def gguf_types(text: str) -> Callable[[Decoder], Callable[[str], str]]:
    """Of formats as text: for a model, the GGUF dtype of each parameter by its name. The rest is the base's.

    InputError for what `read_formats` refuses, for a group that GGUF has not, and for a part that a model has not.
    """
    form = read_formats(text)
    wanted = form if isinstance(form, Formats) else Formats(form)
    if lacking := wanted.names - set(_TYPES):
        raise InputError(f"{sorted(lacking)[0]!r} has no type in GGUF; there are {', '.join(_TYPES)}")
    if wanted.is_quantised and not wanted.widens and wanted.group != _BLOCK:
        raise InputError(
            f"GGUF's int8 and int4 have groups of {_BLOCK}, not {wanted.group}; leave :{wanted.group} out"
        )

    def of(model: Decoder) -> Callable[[str], str]:
        wanted.check(part_names(model))
        head = "embedding.weight" if model.config.tie_word_embeddings else "head.weight"
        return lambda name: _TYPES[wanted.of("head" if name == head else _part(name)).name]

    return of


def _part(name: str) -> str:
    """The part, by its name in `part_names`, that a parameter belongs to; "embedding" and the like are none."""
    place = _PLACE.match(name)
    if place is None:
        return name.partition(".")[0]
    return place[0].replace("feed_forward", "experts") if _ROUTED.search(name) else place[0]
