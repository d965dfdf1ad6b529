"""What a change is held against: the same without something else of the same size, drawn at random.

So a change that any document would have made can be told from one that only this document makes. Where the stage has
nothing else of that size, the control leaves nothing out and takes another seed.
"""

import random
from dataclasses import dataclass

import numpy as np

from clearseek.recipe.counterfactual import Counterfactual
from clearseek.recipe.without import Place, Without, find_without
from clearseek.recipe.without_context import Read
from clearseek.trace.kept import document_sha256, text_of

_NEAREST = 16  # documents nearest in size, of which one is drawn


@dataclass(frozen=True)
class Other:
    """What is left out instead, in words; `without` None: nothing, and another seed is taken."""

    told: str
    without: Without | None


def find_other(found: Counterfactual) -> Other:
    """Something else of the size of what a counterfactual left out, of the first place that has read it."""
    without, recipe = found.without, found.run.recipe
    place, draw = without.places[0], random.Random(f"{recipe.seed}/{without.told}")
    chosen = (
        _another_problem(found, place, draw)
        if place.source is None
        else _other_documents(found, found.read[place.stage], place, draw)
    )
    if chosen is None:
        return Other(f"nothing left out, seed {recipe.seed + 1} instead of {recipe.seed}", None)
    return chosen


def _other_documents(found: Counterfactual, read: Read, place: Place, draw: random.Random) -> Other | None:
    wanted = int(read.tokens[read.left_out].sum())
    if found.without.only is None:
        return _documents_as_many(read, place, wanted, draw)
    beside = np.flatnonzero((read.sources == place.source) & ~read.left_out & (read.tokens > 0))
    if not len(beside):
        return None
    nearest = beside[np.argsort(np.abs(read.tokens[beside] - wanted), kind="stable")][:_NEAREST]
    number = int(nearest[draw.randrange(len(nearest))])
    name = document_sha256(text_of(read.documents[number]))
    told = f"without document {name[:8]} of {place} ({read.tokens[number]:,} tokens seen)"
    return Other(told, find_without(found.run, name, found.target))


def _documents_as_many(read: Read, place: Place, wanted: int, draw: random.Random) -> Other | None:
    """Documents of the stage's other sources with as many tokens together; None where there aren't so many."""
    others = [int(n) for n in np.flatnonzero((read.sources != place.source) & (read.tokens > 0))]
    draw.shuffle(others)
    ends = np.cumsum(read.tokens[others]) if others else np.zeros(0, np.int64)
    if not len(ends) or ends[-1] < wanted:
        return None
    chosen = others[: int(np.searchsorted(ends, wanted)) + 1]
    names = frozenset(document_sha256(text_of(read.documents[number])) for number in chosen)
    places = tuple(Place(place.stage, source) for source in sorted({int(read.sources[n]) for n in chosen}))
    told = (
        f"without {len(chosen):,} documents of other sources ({int(read.tokens[chosen].sum()):,} tokens seen)"
    )
    return Other(told, Without(told, places, names))


def _another_problem(found: Counterfactual, place: Place, draw: random.Random) -> Other | None:
    if found.without.only is None:
        return None
    asked = found.problems_of(place.stage)
    (left_out,) = found.without.only
    wanted = asked[left_out][1]
    others = sorted((name for name in asked if name != left_out), key=lambda n: abs(asked[n][1] - wanted))
    if not others:
        return None
    name = others[draw.randrange(min(len(others), _NEAREST))]
    told = f"without problem {name[:8]} of {place}"
    return Other(told, find_without(found.run, name, found.target))
