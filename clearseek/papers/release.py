"""Writes all papers of a run into a directory beside it, signs a list of them, and checks such a directory."""

import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from clearseek.config.errors import InputError, RunError
from clearseek.ledger.lines import file_sha256
from clearseek.ledger.note import read_statement, signed_statement
from clearseek.ledger.record import Record
from clearseek.ledger.seal import log_name
from clearseek.papers.bom import bill_of_materials
from clearseek.papers.code import code_manifest
from clearseek.papers.components import components_of
from clearseek.papers.croissant import croissant
from clearseek.papers.datasets import Absent, DataFile, write_datasets
from clearseek.papers.documents import documents, evaluation_record
from clearseek.papers.facts import Publisher, RunFacts
from clearseek.papers.openness import Component, evaluate, mof_file, osaid
from clearseek.papers.provenance import provenance
from clearseek.papers.signing import envelope, model_key, model_signature, public_pem

NOTE, KEY = "release.note", "release.pub"
_COPIED = ("recipe.toml", "samples.jsonl", "ledger.pub", "checkpoint")


def papers_beside(run: Path) -> Path:
    """Where the papers of a run lie unless told otherwise."""
    run = run.resolve()
    return run.with_name(f"{run.name}-papers")


def write_papers(facts: RunFacts, out: Path) -> Record:
    """Write every paper into `out`, whole or not at all, and return what openness.json says.

    Raises InputError where `out` holds files or lies in the run, RunError where it can't be written.
    """
    _check_out(facts.run, out)
    partial = out.with_name(f".{out.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        found = _write_all(facts, partial)
        if out.exists():
            out.rmdir()
        partial.rename(out)
    except OSError as error:
        raise RunError(
            f"{out}: the papers can't be written there ({error.strerror}); nothing was left"
        ) from None
    finally:
        with suppress(OSError):
            shutil.rmtree(partial)
    return found


def _check_out(run: Path, out: Path) -> None:
    if out.resolve().is_relative_to(run.resolve()):
        raise InputError(f"{out} lies in the run, which is sealed; give an --out beside it")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} holds something already; remove it, or give another --out")


def _write_all(facts: RunFacts, out: Path) -> Record:
    code = code_manifest(facts)
    key = model_key()
    files, absent = write_datasets(facts, out)
    data = data_record(files, absent)
    every: list[DataFile | Absent] = [*files, *absent]
    for each in every:
        _json(out / f"data/{each.title}.croissant.json", croissant(facts, each))
    for name in _COPIED:
        if (facts.run / name).is_file():
            shutil.copyfile(facts.run / name, out / name)
    _json(out / "data.json", data)
    _json(out / "code.json", code)
    _json(out / "cost.json", facts.cost)
    _json(out / "evaluation.json", evaluation_record(facts))
    _json(out / "bom.cdx.json", bill_of_materials(facts, files, absent))
    for name, text in documents(facts, files, [each.line for each in absent]).items():
        (out / name).write_text(text, encoding="utf-8", newline="\n")
    _json(out / "model.sig", model_signature(key, facts.run / facts.model_dir, facts.name))
    (out / "model.pub").write_bytes(public_pem(key))
    signed = json.dumps(envelope(key, provenance(facts, files, absent)))
    (out / "provenance.intoto.jsonl").write_text(signed + "\n", encoding="utf-8")
    return _write_checklists(facts, out, data, code)


def _write_checklists(facts: RunFacts, out: Path, data: Record, code: Record) -> Record:
    components = components_of(facts, hashes_below(out), data, code)
    found = openness_record(facts, components)
    _json(out / "openness.json", found)
    stated = facts.publisher
    treatment = "pre-trained" if facts.result.kind == "pretrain" else "instruct fine-tuned"
    mof = mof_file(
        facts.name,
        facts.verified.root[:12],
        facts.day,
        stated.provider or "not stated",
        stated.contact or "not stated",
        components,
        treatment,
    )
    (out / "mof.yml").write_text(yaml(mof), encoding="utf-8")
    _sign(facts, out, found)
    return found


def openness_record(facts: RunFacts, components: list[Component]) -> Record:
    """Class, what is missing for the next, and OSAID's checklist, as openness.json holds them."""
    return {
        "model": facts.name,
        "ledger_root": facts.verified.root,
        "mof": evaluate(components),
        "osaid": osaid(components),
    }


def data_record(files: list[DataFile], absent: list[Absent]) -> Record:
    """data.json: every data set's file, and what is known of the others, with the reasons in `missing`."""
    return {
        "files": [asdict(file) for file in files],
        "missing": [each.line for each in absent],
        "described": [asdict(each) for each in absent],
    }


def _sign(facts: RunFacts, out: Path, found: Record) -> None:
    with (facts.run / "ledger.jsonl").open("rb") as file:
        name = log_name(file.readline())
    release = {
        "name": facts.name,
        "ledger": {
            "lines": facts.verified.sealed,
            "root": facts.verified.root,
            "signer": facts.verified.signer,
        },
        "model": {
            path: digest for path, digest in facts.hashes.items() if path.startswith(f"{facts.model_dir}/")
        },
        "mof_class": found["mof"]["class"],
        "stated": asdict(facts.publisher),
        "files": hashes_below(out),
    }
    note, key = signed_statement(name, "release", release)
    (out / NOTE).write_text(note, encoding="utf-8")
    (out / KEY).write_text(key, encoding="utf-8")


def hashes_below(out: Path) -> dict[str, str]:
    """Every file's hash by its path, the note and its key left out."""
    paths = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    return {path: file_sha256(out / path) for path in paths if path not in (NOTE, KEY)}


def read_release(out: Path, key: str | None = None) -> Record:
    """What release.note says, once its signature and every file hold. RunError names the first that doesn't."""
    try:
        own = key or (out / KEY).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise RunError(f"{out} has no {KEY}: it holds no papers, or was half copied") from None
    release = read_statement(out / NOTE, "release", own)
    there = hashes_below(out)
    named = release.get("files") or {}
    for path, digest in named.items():
        if path not in there:
            raise RunError(f"{out / path} is missing: the papers were half copied")
        if there[path] != digest:
            raise RunError(f"{out / path} is not the file that {NOTE} names: it was changed")
    others = sorted(there.keys() - named.keys())
    if others:
        raise RunError(f"{out / others[0]} is not named by {NOTE}: it came afterwards")
    return release


def openness_of(facts: RunFacts, papers: Path) -> Record:
    """How open a run is, with the papers that lie in `papers`; without them only what the run itself holds counts.

    Raises RunError where the papers were changed, or are those of another run.
    """
    if not papers.is_dir():
        return openness_record(facts, components_of(facts, {}, {}, {}))
    release = read_release(papers)
    if release["ledger"]["root"] != facts.verified.root:
        raise RunError(
            f"{papers} are the papers of another run: their ledger has the root {release['ledger']['root']}"
        )
    data, code = (_read(papers / name) for name in ("data.json", "code.json"))
    facts = replace(facts, publisher=Publisher(**release["stated"]))  # as the publisher signed it
    return openness_record(facts, components_of(facts, release["files"], data, code))


def yaml(value: Any, depth: int = 0) -> str:
    """Tables, lists of tables and texts as YAML; texts in quotes, as JSON and YAML both read them."""
    space, lines = "  " * depth, []
    for name, item in value.items():
        if isinstance(item, dict) and item:
            lines.append(f"{space}{name}:\n{yaml(item, depth + 1)}")
        elif isinstance(item, list) and item:
            lines.append(f"{space}{name}:\n")
            lines += [f"{space}  -{yaml(row, depth + 2)[len(space) + 3 :]}" for row in item]
        else:
            lines.append(f"{space}{name}: {json.dumps(item, ensure_ascii=False)}\n")
    return "".join(lines)


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
