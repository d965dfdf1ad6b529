"""What there is of each component of the Model Openness Framework: files of the run, of its papers, of the package."""

from typing import Any

from clearseek.ledger.record import Record, table, table_list
from clearseek.papers.code import PARTS, installed_sha256
from clearseek.papers.facts import CODE_LICENCE, RunFacts
from clearseek.papers.openness import COMPONENTS, Component

# components that are one document of the papers
_DOCUMENTS = {
    "Model card": "README.md",
    "Data card": "data-card.md",
    "Technical report": "report.md",
    "Research paper": "paper.md",
    "Evaluation results": "evaluation.json",
}


def components_of(facts: RunFacts, papers: dict[str, str], data: Record, code: Record) -> list[Component]:
    """All seventeen; `papers` are the hashes of the papers' files, `data` is data.json and `code` is code.json.

    What is empty of these is not there, and is not claimed.
    """
    found = {
        **_code(code),
        **_weights(facts),
        **_data(facts, papers, data),
        **{name: _document(facts, papers, name, path) for name, path in _DOCUMENTS.items()},
        "Sample model outputs": Component(
            "Sample model outputs",
            _named(facts, ("samples.jsonl",)),
            (facts.publisher.documents,),
            path="samples.jsonl",
        ),
        "Model metadata": Component(
            "Model metadata",
            _named(facts, ("recipe.toml", f"{facts.model_dir}/config.json", *_states(facts))),
            (facts.publisher.weights,),
            path="recipe.toml",
        ),
    }
    return [found[name] for name in COMPONENTS]


def _named(facts: RunFacts, paths: tuple[str, ...]) -> dict[str, str]:
    """Those of the run's files that the ledger names; the verifier has found each as named."""
    return {path: facts.hashes[path] for path in paths if path in facts.hashes}


def _states(facts: RunFacts) -> list[str]:
    """States of the optimiser that the run keeps."""
    return [path for path in facts.hashes if path.startswith("states/")]


def _code(code: Record) -> dict[str, Component]:
    found = {}
    for name, folders in PARTS.items():
        files = {str(path): str(digest) for path, digest in table(table(code.get("parts")).get(name)).items()}
        missing = _code_problems(files)
        path = ", ".join(f"clearseek/{folder}" for folder in folders)
        found[name] = Component(name, files, (CODE_LICENCE,), missing, path)
    return found


def _code_problems(files: dict[str, str]) -> tuple[str, ...]:
    """Why code is not there: nobody names it, or the code that is installed here is another."""
    if not files:
        return ("code.json names no file of it; `clearseek papers RUN` writes it",)
    others = [path for path, digest in files.items() if installed_sha256(path) != digest]
    return (
        (f"{len(others)} of its files are not here as code.json names them, such as {others[0]}",)
        if others
        else ()
    )


def _weights(facts: RunFacts) -> dict[str, Component]:
    weights = {
        path: digest
        for path, digest in facts.hashes.items()
        if path.startswith("checkpoints/") and path.endswith(".safetensors")
    }
    final = {path: digest for path, digest in weights.items() if path.startswith(f"{facts.model_dir}/")}
    between = {path: digest for path, digest in weights.items() if path not in final}
    licence = (facts.publisher.weights,)
    return {
        "Model parameters (Final)": Component(
            "Model parameters (Final)", final, licence, path=facts.model_dir
        ),
        "Model parameters (Intermediate)": Component(
            "Model parameters (Intermediate)", between, licence, path="checkpoints"
        ),
    }


def _data(facts: RunFacts, papers: dict[str, str], data: Record) -> dict[str, Component]:
    files = table_list(data.get("files"))
    training = [file for file in files if not file.get("is_evaluation")]
    evaluation = [file for file in files if file.get("is_evaluation")]
    told = [str(line) for line in data.get("missing") or []]
    of_evaluations = tuple(line for line in told if line.startswith("evaluation"))
    of_training = tuple(line for line in told if line not in of_evaluations)
    unwritten = () if data else ("`clearseek papers RUN` writes it",)
    asked = [source.licence for source in facts.sources if source.what == "asked"]
    return {
        "Datasets": Component(
            "Datasets",
            _there(training, papers),
            (*(file.get("licence") for file in training), *asked),
            (*unwritten, *of_training),
            "data",
        ),
        "Evaluation data": Component(
            "Evaluation data",
            _there(evaluation, papers),
            tuple(file.get("licence") for file in evaluation),
            (*unwritten, *of_evaluations),
            "data",
        ),
    }


def _there(files: list[dict[str, Any]], papers: dict[str, str]) -> dict[str, str]:
    return {str(file["path"]): papers[str(file["path"])] for file in files if file["path"] in papers}


def _document(facts: RunFacts, papers: dict[str, str], name: str, path: str) -> Component:
    files = {path: papers[path]} if path in papers else {}
    missing = () if files else (f"there is no {path}; `clearseek papers RUN` writes it",)
    return Component(name, files, (facts.publisher.documents,), missing, path)
