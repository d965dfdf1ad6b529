"""What a user's MODEL means: a run, one of its checkpoints, or a directory in Hugging Face format."""

from pathlib import Path

from clearseek.config.errors import InputError
from clearseek.config.shipped import carried_model
from clearseek.ledger.lines import tolerant_records
from clearseek.ledger.log import check_format
from clearseek.model.gguf.header import is_gguf

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"

_WANTED = "give a run, one of its checkpoints or a Hugging Face directory"


def resolve_source(path: Path) -> Path:
    """As `resolve_model`, but a GGUF file means itself."""
    return path if is_gguf(path) else resolve_model(path)


def resolve_model(path: Path) -> Path:
    """The model directory that `path` means; a run stands for the stage that its recipe calls final, else
    for its newest finished stage that left a model; a bare name for the model that comes with clearseek.

    Raises InputError naming what was looked for.
    """
    path = Path(path)
    if not path.exists() and (carried := carried_model(str(path))) is not None:
        return carried
    if not path.exists():
        raise InputError(f"{path}: no such directory; {_WANTED}")
    if not path.is_dir():
        if path.suffix == ".gguf":
            raise InputError(f"{path}: is a GGUF file; first turn it round: clearseek export {path} --to hf")
        raise InputError(f"{path}: is a file; give the directory that holds it")
    if is_model_directory(path):
        return path
    if (path / "ledger.jsonl").exists() or (path / "checkpoints").is_dir():
        return _newest_of_run(path)
    raise InputError(_nothing_found(path))


def is_model_directory(path: Path) -> bool:
    """Whether a directory holds a model: config.json and safetensors weights."""
    has_weights = (path / WEIGHTS_FILE).is_file() or (path / INDEX_FILE).is_file()
    return has_weights and (path / CONFIG_FILE).is_file()


def _newest_of_run(run: Path) -> Path:
    check_format(run / "ledger.jsonl")
    records = list(tolerant_records(run / "ledger.jsonl"))
    finished = [str(record.get("stage")) for record in records if record.get("kind") == "stage_finished"]
    results = [str(record["result"]) for record in records if record.get("result") in finished]
    for stage in (*reversed(results), *reversed(finished)):
        checkpoint = run / "checkpoints" / stage
        if is_model_directory(checkpoint):
            return checkpoint
    done = f"finished stages: {', '.join(finished)}" if finished else "none of its stages is finished"
    raise InputError(
        f"{run}: no finished model in {run / 'checkpoints'} ({done}); continue the run with `clearseek run`"
    )


def _nothing_found(path: Path) -> str:
    pickles = [*path.glob("pytorch_model*.bin"), *path.glob("*.pt"), *path.glob("*.pth")]
    if pickles and (path / CONFIG_FILE).is_file():
        return (
            f"{path}: holds only {min(pickles).name}, a pickle, which can run code when opened and so is "
            "never opened here; convert it with transformers: model.save_pretrained(DIRECTORY)"
        )
    missing = " and no ".join(name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (path / name).is_file())
    return f"{path}: is neither a run (no ledger.jsonl) nor a model (no {missing}); {_WANTED}"
