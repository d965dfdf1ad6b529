"""The documents for people: cards, reports and the EU's summary, by templates that only read records."""

import re
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from clearseek.ledger.record import Record, table, values
from clearseek.papers.content import limitation, training_content
from clearseek.papers.datasets import DataFile
from clearseek.papers.facts import RunFacts
from clearseek.papers.figures import Figures
from clearseek.papers.licences import chosen

# the name of each document and its template
DOCUMENTS = {
    "README.md": "model_card.md.jinja",
    "data-card.md": "data_card.md.jinja",
    "report.md": "report.md.jinja",
    "paper.md": "paper.md.jinja",
    "eu-summary.md": "eu_summary.md.jinja",
}


def evaluation_record(facts: RunFacts) -> Record:
    """What evaluation.json holds: every stage's examination and the published model's, and what was counted of both.

    That is steps and tokens of stages, rows and tokens of data sets, and the model's parameters and context.
    """
    stages = [
        {
            "name": stage.name,
            "kind": stage.kind,
            "steps": len(stage.steps),
            "tokens": stage.tokens,
            "eval": stage.eval,
        }
        for stage in facts.record.stages
    ]
    final = facts.final_eval
    steps = [step for stage in facts.record.stages for step in stage.steps]
    return {
        "model": facts.result.name,
        "size": facts.parameters | {"context": facts.config.get("max_position_embeddings")},
        "examined_in": final.name,
        "result": final.eval,
        "stages": stages,
        "mismatch": max(values(steps, "mismatch"), default=None),
        "data": [
            {"title": source.title, "rows": source.rows, "tokens": source.tokens} for source in facts.sources
        ],
    }


def documents(facts: RunFacts, files: list[DataFile], missing: list[str]) -> dict[str, str]:
    """Every document by its name."""
    environment = Environment(
        loader=PackageLoader("clearseek.papers"),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.globals |= _words(facts, files, missing)
    texts = {name: environment.get_template(template).render() for name, template in DOCUMENTS.items()}
    return {name: re.sub(r"\n{3,}", "\n\n", text) for name, text in texts.items()}


def _words(facts: RunFacts, files: list[DataFile], missing: list[str]) -> dict[str, Any]:
    evaluation = evaluation_record(facts)
    figures = Figures({"evaluation.json": evaluation, "cost.json": facts.cost})
    tasks = table(evaluation["result"].get("by_task"))
    weights = facts.publisher.weights
    return {
        "facts": _Absent(facts),
        "files": files,
        "missing": missing,
        "paths": _paths(facts, files),
        "evaluation": {
            "result": {"by_language": {}, "samples": None, "n": None, "pass_at_1": None}
            | evaluation["result"],
            "mismatch": evaluation["mismatch"],
        },
        "cost": facts.cost,
        "figure": figures.figure,
        "count": figures.count,
        "small": figures.small,
        "claim": figures.claim,
        "tasks": sorted(tasks),
        "worst": min(tasks, key=lambda name: tasks[name], default=None),
        "probe": next((str(sample.get("prompt")) for sample in facts.record.samples), "17+25?"),
        "licence_id": chosen(weights, "code").lower() if weights else None,
        "limitation": limitation(facts),
        **training_content(facts),
    }


def _paths(facts: RunFacts, files: list[DataFile]) -> dict[str, str]:
    """A link to each source's file; answers that another stage kept lie in that stage's."""
    links = {file.title: f"[{file.path}]({file.path})" for file in files}
    kept = {s.title: links[s.teacher] for s in facts.sources if s.teacher in links}
    return kept | links


class _Absent:
    """Facts whose absent fields are None in a template: records of other kinds of stages lack many."""

    def __init__(self, thing: Any) -> None:
        self._thing = thing

    def __getattr__(self, name: str) -> Any:
        return _soft(getattr(self._thing, name))


def _soft(value: Any) -> Any:
    """Tables that answer None for a key that they lack; what is no table or object of ours stays as it is."""
    if isinstance(value, dict):
        return _Soft({key: _soft(item) for key, item in value.items()})
    if isinstance(value, list | tuple):
        return [_soft(item) for item in value]
    return _Absent(value) if type(value).__module__.startswith("clearseek.") else value


class _Soft(dict[str, Any]):
    def __missing__(self, key: str) -> None:
        return None
