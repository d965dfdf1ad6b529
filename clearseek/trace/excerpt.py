"""A run in one file, without its weights and states: what a model brings along so that its answers can be traced.

The file lies beside the weights and is unpacked among the user's files when somebody first asks: the model's own
directory may not be written to. What it lacks, and which model it belongs to, is signed by the key that sealed the
run, so that `clearseek ledger verify` tells a file left out from a file lost.
"""

import json
import lzma
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.config.places import cache_directory
from clearseek.config.shipped import carried_model
from clearseek.ledger.cost import NOTE
from clearseek.ledger.lines import file_sha256
from clearseek.ledger.log import read
from clearseek.ledger.note import key_of_run, read_statement, signed_statement
from clearseek.ledger.seal import is_complete, log_name
from clearseek.ledger.verifier import EXCERPT, KEY, LEDGER, SEAL, SEALED_FILES, SEALED_FOLDERS, named_files

ARCHIVE = "run.tar.xz"
_TOP = (LEDGER, SEAL, KEY, NOTE, "timings.jsonl", *SEALED_FILES)
_SIZES = "sizes.json"  # beside an unpacked run: written last


def find_run(path: Path) -> Path:
    """The directory of the run that a user's RUN means.

    A run's own, or that of the run that a model brings along, unpacked if need be; the bare name of the model that
    comes with clearseek means that one. Anything else is given back for the reader to name what is missing.
    """
    path = named(path)
    return path if (path / LEDGER).exists() or not brings_run(path) else unpacked(path)


def named(path: Path) -> Path:
    """A path itself, or the model that comes with clearseek where it is that one's bare name and nothing else."""
    return path if path.exists() else carried_model(str(path)) or path


def brings_run(model: Path) -> bool:
    """Whether a model's directory has the run that made it."""
    return (model / ARCHIVE).is_file()


def is_excerpt(run: Path) -> bool:
    """Whether a run was unpacked from such a file."""
    return (run / EXCERPT).is_file()


def check_whole(run: Path) -> None:
    """InputError for a run whose weights and states a model doesn't bring along."""
    if is_excerpt(run):
        recipe = run / "recipe.toml"
        raise InputError(
            f"{run.name} brings its run along without weights and states, which this needs; run its recipe again, "
            f"which gives the same ones: clearseek run {recipe}"
        )


def has_run(model: Path) -> bool:
    """Whether the run that made a model is here and keeps what it trained on: around its checkpoint, or along."""
    if brings_run(model):
        return True
    ledger = model.absolute().parent.parent / LEDGER
    is_checkpoint = model.absolute().parent.name == "checkpoints" and ledger.is_file()
    return is_checkpoint and b'"kind":"mix"' in ledger.read_bytes()


def run_and_stage(model: Path) -> tuple[Path, str]:
    """The run that made a model, unpacked if need be, and its stage that left it; only where `has_run`."""
    if brings_run(model):
        run = unpacked(model)
        return run, str(signed_excerpt(run)["stage"])
    checkpoint = model.absolute()
    return checkpoint.parent.parent, checkpoint.name


# pack


def pack_run(run: Path, model: Path, stage: str) -> Path:
    """Write a finished run beside a model that was made of its stage `stage`, and sign what it lacks.

    Raises InputError as `check_can_pack`, RunError where the disk refuses.
    """
    check_can_pack(run)
    archive, note = model / ARCHIVE, _note(run, model, stage)
    partial = archive.with_name(f".{ARCHIVE}.partial")
    try:
        with (
            lzma.open(partial, "wb", preset=9 | lzma.PRESET_EXTREME) as packed,
            tarfile.open(fileobj=packed, mode="w") as file,
        ):
            with tempfile.TemporaryDirectory() as folder:
                signed = Path(folder) / EXCERPT
                signed.write_text(note, encoding="utf-8", newline="\n")
                _add(file, signed, EXCERPT)
            for path in _packed(run):
                _add(file, path, path.relative_to(run).as_posix())
        partial.replace(archive)
    except OSError as error:
        raise RunError(f"{archive}: can't be written ({error.strerror or error}); make room") from error
    finally:
        partial.unlink(missing_ok=True)
    return archive


def check_can_pack(run: Path) -> None:
    """InputError for a run that isn't finished, or that this user has not sealed."""
    check_whole(run)
    if not is_complete(run):
        raise InputError(f"{run} isn't finished and sealed; let `clearseek run` finish it")
    if _signed(run, {})[1].strip() != key_of_run(run):
        raise InputError(
            f"{run} was sealed with another key than yours; whoever sealed it has to say what is left out of it: "
            "set CLEARSEEK_LEDGER_KEY to that key's file"
        )


def _note(run: Path, model: Path, stage: str) -> str:
    """Which files the run names that don't go along, and the model's own files by hash."""
    packed = {path.relative_to(run).as_posix() for path in _packed(run)}
    named = {str(file["path"]) for record in read(run / LEDGER) for file in named_files(record)}
    files = {path.name: file_sha256(path) for path in sorted(model.iterdir()) if path.name != ARCHIVE}
    facts = {"left_out": sorted(named - packed), "stage": stage, "model": files}
    return _signed(run, facts)[0]


def _signed(run: Path, facts: dict[str, Any]) -> tuple[str, str]:
    with (run / LEDGER).open("rb") as file:
        return signed_statement(log_name(file.readline()), "excerpt", facts)


def _packed(run: Path) -> Iterator[Path]:
    """What goes along: all but weights and the states between steps."""
    yield from (run / name for name in _TOP if (run / name).is_file())
    for folder in SEALED_FOLDERS:
        for path in sorted((run / folder).rglob("*")) if folder != "states" else ():
            is_weights = folder == "checkpoints" and path.suffix == ".safetensors"
            if path.is_file() and not is_weights:
                yield path


def _add(file: tarfile.TarFile, path: Path, name: str) -> None:
    """A file without owner or time, so that the same run gives the same bytes."""
    about = tarfile.TarInfo(name)
    about.size, about.mode = path.stat().st_size, 0o644
    with path.open("rb") as content:
        file.addfile(about, content)


# unpack


def unpacked(model: Path) -> Path:
    """The run that a model brings along, among the user's files. RunError where it is damaged or can't be kept."""
    archive = model / ARCHIVE
    folder = cache_directory() / "runs" / file_sha256(archive)[:32]
    place = folder / model.resolve().name
    if _is_whole(folder, place):
        return place
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".partial-"))
        try:
            _unpack(archive, partial / place.name)
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise RunError(f"{archive} is damaged ({error}); get the model again") from error
    except OSError as error:
        if not _is_whole(folder, place):  # else another process has just put it there
            raise RunError(
                f"{folder}: the run of {model} can't be unpacked there ({error.strerror or error}); make room, or set "
                "XDG_CACHE_HOME"
            ) from error
    return place


def _is_whole(folder: Path, place: Path) -> bool:
    """Whether all that was unpacked is there still: caches are swept."""
    try:
        sizes = json.loads((folder / _SIZES).read_bytes())
        return all((place / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _unpack(archive: Path, place: Path) -> None:
    sizes = {}
    with tarfile.open(archive, "r:xz") as file:
        for member in file:
            path = PurePosixPath(member.name)
            content = file.extractfile(member) if member.isfile() else None
            if content is None or path.is_absolute() or ".." in path.parts or "\\" in member.name:
                raise tarfile.TarError(f"{member.name!r} is no file of a run")
            target = place / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as out:
                shutil.copyfileobj(content, out)
            sizes[member.name] = member.size
    (place.parent / _SIZES).write_text(json.dumps(sizes), encoding="utf-8")


# what was signed


def signed_excerpt(run: Path) -> dict[str, Any]:
    """What the note of an unpacked run says: `left_out`, `stage`, and the files of the `model` by hash."""
    return read_statement(run / EXCERPT, "excerpt", key_of_run(run))


def check_model(model: Path) -> dict[str, str]:
    """The files of a model that brings its run along, by hash. RunError where one isn't what the run's key signed."""
    files: dict[str, str] = signed_excerpt(unpacked(model))["model"]
    for name, digest in files.items():
        path = model / name
        if not path.is_file() or file_sha256(path) != digest:
            raise RunError(f"{path} is not the file that the run's key signed: it was changed, or is missing")
    return files
