"""What a model was made from and by what, as an in-toto statement with SLSA's provenance (slsa.dev/provenance/v1)."""

from typing import Any

from clearseek.papers.code import installed_version
from clearseek.papers.datasets import Absent, DataFile
from clearseek.papers.facts import RunFacts
from clearseek.papers.signing import STATEMENT

_MAKER = "urn:clearseek"


def provenance(facts: RunFacts, files: list[DataFile], absent: list[Absent]) -> dict[str, Any]:
    """The statement: subjects are the published model's files, dependencies the recipe and the data."""
    subjects = {
        path: digest for path, digest in facts.hashes.items() if path.startswith(f"{facts.model_dir}/")
    }
    run = facts.record.run
    return {
        "_type": STATEMENT,
        "subject": [{"name": path, "digest": {"sha256": digest}} for path, digest in subjects.items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": f"{_MAKER}:run",
                "externalParameters": {"recipe": facts.name, "seed": run.get("seed")},
                "internalParameters": {
                    name: run.get(name)
                    for name in (
                        "device",
                        "dtype",
                        "threads",
                        "processes",
                        "versions",
                        "code_sha256",
                        "checkout",
                    )
                },
                "resolvedDependencies": [
                    _dependency("recipe.toml", facts.hashes.get("recipe.toml")),
                    *(_dependency(base["name"], base["sha256"]) for base in facts.bases(facts.result)),
                    *(_dependency(file.path, file.sha256) for file in files if not file.is_evaluation),
                    *(
                        _dependency(f"documents of {each.title}", each.sha256)
                        for each in absent
                        if not each.is_evaluation
                    ),
                ],
            },
            "runDetails": {
                "builder": {"id": f"{_MAKER}:{installed_version()}"},
                "metadata": {"invocationId": f"{facts.verified.signer} {facts.verified.root}"},
                "byproducts": [_dependency("ledger root", facts.verified.root)],
            },
        },
    }


def _dependency(name: str, digest: str | None) -> dict[str, Any]:
    return {"name": name, "digest": {"sha256": digest or ""}}
