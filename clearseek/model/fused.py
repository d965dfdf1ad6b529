"""Experts under either of their published names: one by one, or all of a layer in one tensor.

The Hub's checkpoints keep `experts.N.gate_proj.weight`; `transformers` 5 stacks them in memory, and some
checkpoints are saved so: `experts.gate_up_proj` [E, 2 · I, H] and `experts.down_proj` [E, H, I].
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.model.families.pieces import Piece
from clearseek.model.sources import Source

_SINGLE = re.compile(r"(?P<experts>.*\.experts)\.(?P<number>\d+)\.")
_STACKED = re.compile(r"(?P<experts>.*\.experts)\.(?P<which>gate_up_proj|down_proj)")


def as_stored(
    config: ModelConfig, pieces: Iterable[Piece], sources: Mapping[str, Source], directory: Path
) -> Iterator[Piece]:
    """The pieces, with those of experts under the names that are stored where these are the other ones.

    Lazily: a config that promises a million experts costs no more than the checkpoint holds. Raises InputError
    where a stacked tensor has fewer experts than that.
    """
    last = ""
    for piece in pieces:
        single = _SINGLE.match(piece.published)
        if piece.published in sources:
            yield piece
        elif single and (stacked := _stacked_name(single["experts"], piece)) in sources:
            _check_number(int(single["number"]), stacked, sources, directory)
            if single["number"] == "0" and stacked != last:  # gate and up come one after the other
                yield replace(piece, published=stacked, index=())
                last = stacked
        else:
            yield from _one_by_one(config, piece, sources)


def _stacked_name(experts: str, piece: Piece) -> str:
    return f"{experts}.{'down_proj' if piece.ours.endswith('.down') else 'gate_up_proj'}"


def _check_number(number: int, stacked: str, sources: Mapping[str, Source], directory: Path) -> None:
    shape = sources[stacked].shape
    if not shape or number >= shape[0]:
        raise InputError(
            f"{directory}: {stacked} is {list(shape)}, but config.json asks for more than {number} experts"
        )


def _one_by_one(config: ModelConfig, piece: Piece, sources: Mapping[str, Source]) -> Iterator[Piece]:
    """A stacked piece as those of its experts, where the first of them is stored."""
    stacked = _STACKED.fullmatch(piece.published)
    if not stacked or f"{stacked['experts']}.0.down_proj.weight" not in sources:
        yield piece
        return
    width = config.moe_intermediate_size
    for number in range(config.num_routed_experts):
        names = f"{stacked['experts']}.{number}"
        if stacked["which"] == "down_proj":
            yield replace(piece, published=f"{names}.down_proj.weight", index=(number,))
            continue
        for which, rows in (("gate", slice(0, width)), ("up", slice(width, 2 * width))):
            yield replace(piece, published=f"{names}.{which}_proj.weight", index=(number, rows))
