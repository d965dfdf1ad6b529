"""A small run, sealed, made without training anything."""

from pathlib import Path

from clearseek.ledger.log import Ledger, read
from clearseek.ledger.seal import seal, unnamed_files
from clearseek.ledger.verifier import verify_run


def sealed_run(directory: Path, steps: int = 20) -> Path:
    """Two stages, the second from what the first left, with a model, samples and kept data."""
    directory.mkdir(parents=True)
    (directory / "recipe.toml").write_text('name = "tiny"\n')
    (directory / "samples.jsonl").write_text('{"line":0}\n')
    (directory / "data").mkdir()
    (directory / "data" / "kept.jsonl").write_text('{"prompt":"1+1","completion":"2"}\n' * 3)
    with Ledger(directory / "ledger.jsonl") as ledger:
        ledger.append("run", recipe="tiny", seed=1, versions={"python": "3.11"})
        parent = None
        for stage in ("pretrain", "sft"):
            parents = [] if parent is None else [{"stage": "pretrain", "sha256": parent}]
            ledger.append("stage_started", stage, kind_of_stage=stage, parents=parents)
            for step in range(1, steps + 1):
                ledger.append(
                    "step", stage, step=step, loss=7.2 / step, grad_norm=1 / 3, learning_rate=1e-3 * step
                )
            parent = model_of(directory, stage)
            outputs = [{"path": f"checkpoints/{stage}/model.safetensors", "sha256": parent}]
            ledger.append("stage_finished", stage, outputs=outputs, tokens=12345)
        ledger.append("eval", "sft", pass_at_1=0.9316666666666666, note="한글")
        ledger.append("files", outputs=unnamed_files(directory, read(directory / "ledger.jsonl")))
        ledger.append("run_finished")
        seal(directory, ledger.lines)
    verify_run(directory)
    return directory


def model_of(directory: Path, stage: str) -> str:
    """A file in the place of a model, and its hash."""
    import hashlib

    folder = directory / "checkpoints" / stage
    folder.mkdir(parents=True)
    content = stage.encode() * 500
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text('{"hidden_size":64}')
    return hashlib.sha256(content).hexdigest()
