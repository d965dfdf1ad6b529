"""What a model was made from, in the words of the EU's template: by parents, sources, teachers and filters on record.

What no record tells is the recipe's to state; where it doesn't, papers say so.
"""

from collections.abc import Iterable
from typing import Any

from clearseek.ledger.record import table_list
from clearseek.papers.facts import RunFacts, Source

NOT_STATED = "not stated by the recipe"


def training_content(facts: RunFacts) -> dict[str, Any]:
    """Values for the templates, by name; `elsewhere` are sources that this run neither generated nor wrote."""
    sources = facts.sources
    elsewhere = [source for source in sources if source.what != "written" and not source.by_program]
    tokens = sum(source.tokens or 0 for source in sources if source.index is not None)
    return {
        "total_tokens": tokens,
        "band": _band(tokens),
        "kinds": sorted({_kind(source) for source in sources}),
        "latest": _latest(elsewhere) or facts.day,
        "public": [source for source in elsewhere if source.what == "dataset"],
        "private": [source for source in elsewhere if source.what != "dataset"],
        "elsewhere": titles(elsewhere),
        "synthetic": [source for source in sources if source not in elsewhere or source.written_by],
        "from_models": models_of_others(facts),
        "untold": titles(source for source in elsewhere if not source.written_by),
        "filtered": titles(source for source in sources if source.filters),
        "optouts": [f"{source.title}: {source.opt_out or 'not stated'}" for source in elsewhere],
        "personal": _personal(sources),
        "others": _other_models(facts),
        "bases": [base["name"] for base in facts.bases(facts.result)],
    }


def models_of_others(facts: RunFacts) -> list[str]:
    """`SOURCE: MODEL` for rows that models from elsewhere wrote, or models of the run that were made from such."""
    found = []
    for source in facts.sources:
        if source.written_by:
            found.append(f"{source.title}: {source.written_by}")
        elif source.teacher:
            bases = ", ".join(base["name"] for base in facts.bases(facts.record.stage(source.teacher)))
            found += [f"{source.title}: stage {source.teacher}, made from {bases}"] * bool(bases)
    return found


def titles(sources: Iterable[Source]) -> str:
    """The sources by name, "" for none."""
    return ", ".join(source.title for source in sources)


def limitation(facts: RunFacts) -> str:
    """What the run tells of what its model knows besides what it was examined on."""
    bases = ", ".join(base["name"] for base in facts.bases(facts.result))
    if not bases:
        return "It was trained from random weights on the data sets that are listed, and on nothing else."
    return f"It was made from {bases}; what that was trained on, and so what it knows, is {NOT_STATED}."


def _kind(source: Source) -> str:
    if source.by_program:
        return "problems made by program" + (", with worked solutions" if source.what == "generated" else "")
    words = {
        "written": "answers of the run's own models",
        "asked": "problems that the provider named",
        "dataset": "public data sets",
    }
    return words.get(source.what, "texts that the provider named")


def _latest(elsewhere: Iterable[Source]) -> str:
    """The last day that anything was collected, as far as it is stated; "" where nothing was."""
    days = {source.title: source.collected for source in elsewhere}
    unknown = ", ".join(title for title, day in days.items() if day is None)
    known = max((day for day in days.values() if day), default="")
    return "; ".join(filter(None, (known, unknown and f"{NOT_STATED} for {unknown}")))


def _band(tokens: int) -> str:
    if tokens < 1e9:
        return "less than 1 billion tokens"
    return "1 billion to 10 trillion tokens" if tokens <= 1e13 else "more than 10 trillion tokens"


def _personal(sources: Iterable[Source]) -> str:
    """Personal data over all sources, by rule."""
    counted = [source.personal_data for source in sources if source.personal_data is not None]
    if not counted:
        return "not counted"
    rules = dict.fromkeys(rule for found in counted for rule in found)
    return ", ".join(f"{rule} {sum(found.get(rule, 0) for found in counted)}" for rule in rules) or "none"


def _other_models(facts: RunFacts) -> list[str]:
    """Models and tokenizers from elsewhere that any stage began with."""
    parents = [one for stage in facts.record.stages for one in table_list(stage.started.get("parents"))]
    return sorted({str(one.get("path")) for one in parents if not one.get("stage")})
