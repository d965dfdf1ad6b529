"""CycloneDX 1.7: the model with its card, its data and the software that made it, as a bill of materials."""

import uuid
from importlib import metadata
from typing import Any

from clearseek.ledger.record import Record, table
from clearseek.papers.code import installed_version
from clearseek.papers.content import limitation
from clearseek.papers.datasets import Absent, DataFile
from clearseek.papers.facts import CODE_LICENCE, RunFacts

_ACTIVITIES = {
    "pretrain": "training",
    "eval": "validation",
    "tokenizer": "data-preparation",
    "reject": "data-collection",
}


def bill_of_materials(facts: RunFacts, files: list[DataFile], absent: list[Absent]) -> dict[str, Any]:
    """The whole document; the same for the same run. `absent` data are in it as well, without a file."""
    every: list[DataFile | Absent] = [*files, *absent]
    trained_on = [f"data/{each.title}" for each in every if not each.is_evaluation]
    bases = facts.bases(facts.result)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, facts.verified.root)}",
        "version": 1,
        "metadata": {
            "timestamp": f"{facts.day}T00:00:00Z",
            "tools": {
                "components": [{"type": "application", "name": "clearseek", "version": installed_version()}]
            },
            "component": _model(facts, trained_on),
        },
        "components": [
            *map(_base, bases),
            *(_data(facts, each) for each in every),
            *_software(facts.record.run),
        ],
        "dependencies": [
            {
                "ref": "model",
                "dependsOn": [
                    *(f"base/{base['sha256']}" for base in bases),
                    *trained_on,
                    "software/clearseek",
                ],
            }
        ],
    }


def _licences(expression: str | None) -> list[dict[str, Any]]:
    if expression is None:
        return [{"license": {"name": "not stated"}}]
    return [{"expression": expression}]


def _model(facts: RunFacts, trained_on: list[str]) -> dict[str, Any]:
    weights = [
        path
        for path in facts.hashes
        if path.startswith(f"{facts.model_dir}/") and path.endswith(".safetensors")
    ]
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": facts.name,
        "version": facts.verified.root[:12],
        "description": str(facts.recipe.get("description") or facts.name),
        "licenses": _licences(facts.publisher.weights),
        "hashes": [{"alg": "SHA-256", "content": facts.hashes[path]} for path in weights],
        "modelCard": {
            "modelParameters": _parameters(facts, trained_on),
            "quantitativeAnalysis": {"performanceMetrics": _metrics(facts)},
            "considerations": {
                "useCases": [f"Problems of the kinds that it was examined on: {', '.join(_tasks(facts))}."],
                "technicalLimitations": [limitation(facts)],
                "environmentalConsiderations": {"energyConsumptions": _energy(facts)},
            },
        },
    }
    if facts.publisher.provider:
        found["supplier"] = {"name": facts.publisher.provider}
    return found


def _tasks(facts: RunFacts) -> list[str]:
    return sorted(table((facts.final_eval.eval or {}).get("by_task")))


def _parameters(facts: RunFacts, trained_on: list[str]) -> dict[str, Any]:
    return {
        "approach": {"type": _approach(facts)},
        "task": "text generation",
        "architectureFamily": "transformer decoder",
        "modelArchitecture": str((facts.config.get("architectures") or ["unknown"])[0]),
        "datasets": [{"ref": ref} for ref in trained_on],
        "inputs": [{"format": "text"}],
        "outputs": [{"format": "text"}],
    }


def _approach(facts: RunFacts) -> str:
    kinds = {stage.kind for stage in facts.record.lineage(facts.result)}
    if "rl" in kinds:
        return "reinforcement-learning"
    return "self-supervised" if "pretrain" in kinds else "supervised"


def _base(base: Record) -> dict[str, Any]:
    """A model from elsewhere; of several files the hash is that over their hashes in order, which no `hashes` holds."""
    return {
        "type": "machine-learning-model",
        "bom-ref": f"base/{base['sha256']}",
        "name": base["name"],
        "licenses": _licences(None),
        "properties": [{"name": "clearseek:sha256", "value": base["sha256"]}],
    }


def _metrics(facts: RunFacts) -> list[dict[str, Any]]:
    result = facts.final_eval.eval or {}
    low, high = result.get("ci95") or (None, None)
    whole: dict[str, Any] = {"type": "pass@1", "value": str(result.get("pass_at_1")), "slice": "all"}
    if low is not None:
        whole["confidenceInterval"] = {"lowerBound": str(low), "upperBound": str(high)}
    slices = {**table(result.get("by_task")), **table(result.get("by_language"))}
    return [
        whole,
        *({"type": "pass@1", "value": str(value), "slice": name} for name, value in slices.items()),
    ]


def _energy(facts: RunFacts) -> list[dict[str, Any]]:
    return [
        {
            "activity": _ACTIVITIES.get(stage["kind"], "fine-tuning"),
            "energyProviders": [
                {
                    "description": stage["kwh_method"],
                    "organization": {"name": "not stated"},
                    "energySource": "unknown",
                    "energyProvided": {"value": stage["kwh"], "unit": "kWh"},
                }
            ],
            "activityEnergyCost": {"value": stage["kwh"], "unit": "kWh"},
            "properties": [{"name": "clearseek:stage", "value": stage["name"]}],
        }
        for stage in facts.cost["stages"]
    ]


def _data(facts: RunFacts, each: DataFile | Absent) -> dict[str, Any]:
    dataset: dict[str, Any] = {"type": "dataset", "name": each.title}
    found: dict[str, Any] = {
        "type": "data",
        "bom-ref": f"data/{each.title}",
        "name": f"{facts.name}-{each.title}",
        "description": each.about,
        "licenses": _licences(each.licence),
        "data": [dataset],
    }
    if isinstance(each, DataFile):
        found |= {"version": each.sha256[:12], "hashes": [{"alg": "SHA-256", "content": each.sha256}]}
        dataset["contents"] = {"url": f"file:{each.path}"}
    else:
        known = {"distributed": f"no: {each.why}", "documents_sha256": each.sha256}
        found["properties"] = [
            {"name": f"clearseek:{name}", "value": value} for name, value in known.items() if value
        ]
    return found


def _software(run: Record) -> list[dict[str, Any]]:
    """What the run says it ran on, and clearseek's other requirements as they are installed where papers are made."""
    told = {str(name): str(version) for name, version in table(run.get("versions")).items()}
    made = [_library(name, version, "in the run's ledger") for name, version in sorted(told.items())]
    seen = [
        _library(name, metadata.version(name), "installed when published")
        for name in _required() - told.keys()
    ]
    return made + sorted(seen, key=lambda part: str(part["name"]))


def _required() -> set[str]:
    """Names of clearseek's requirements that are installed here."""
    try:
        lines = metadata.requires("clearseek") or []
    except metadata.PackageNotFoundError:
        return set()
    names = {
        line.split(";")[0].split(">")[0].split("=")[0].strip() for line in lines if "extra ==" not in line
    }
    return {name for name in names if _is_installed(name)}


def _is_installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _library(name: str, version: str, known: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "platform" if name == "python" else "library",
        "bom-ref": f"software/{name}",
        "name": name,
        "version": version,
        "properties": [{"name": "clearseek:known", "value": known}],
    }
    if name == "clearseek":
        found["licenses"] = _licences(CODE_LICENCE)
    if name != "python":
        found["purl"] = f"pkg:pypi/{name}@{version.replace('+', '%2B')}"
    return found
