"""Checks a run's ledger and every file that it names. Needs Python and `cryptography`, and nothing else of clearseek.

To be read in one sitting by whoever doesn't trust us. What a sealed run holds:

    ledger.jsonl   one JSON object a line: {"line":N,"prev":HASH,"kind":KIND,...}; prev is the SHA-256 of the line
                   before, newline included. No decimal fractions: a float is what C's %a prints, such as "0x1.8p+1".
    checkpoint     a signed note (c2sp.org/tlog-checkpoint): origin, number of lines, root of their Merkle tree (RFC
                   6962, leaves are lines without newline) in base64, an empty line, and a signature over these three.
    ledger.pub     the key of that signature (c2sp.org/signed-note): NAME+ID+KEY. Whether it is the key of whom you
                   trust only you can say: give it with --key. KEY is the same in all runs that one key sealed.
    cost.note      what the run cost by its own clock, a note signed by the same key.
    excerpt.note   only in a copy without weights: the paths that it lacks, a note signed by the same key.
    the rest       every file below checkpoints/, data/, states/ and rollouts/, recipe.toml and samples.jsonl, each
                   named by a record with its SHA-256. Not vouched for: timings.jsonl, report.json and report.html.

What is checked, in this order; the first thing that is wrong is named:
    1 every line: canonical JSON, its number, the hash of the line before, a known kind; no newer "format" in line 0
    2 the seal: its signature, and the tree of as many lines as it counts, which are all of them once the run has ended
    3 what is used: a stage begins with no model, and learns from no model's texts, but earlier stages'; steps count up
    4 files: each is there with its hash or left out as signed; no other, no link, none of a stage that didn't begin
    5 witnesses: signed notes in RUN.witness/, of who computed steps of this very ledger again, or tested its privacy
"""

import base64
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FORMAT = 1  # the newest form of a ledger that is known here
LEDGER, SEAL, KEY, COST, EXCERPT = "ledger.jsonl", "checkpoint", "ledger.pub", "cost.note", "excerpt.note"
KINDS = frozenset((
    "run", "fork", "stage_started", "source", "filter", "teacher", "data", "mix", "step", "eval", "stopped_early",
    "stage_finished", "files", "run_finished",
))  # fmt: skip
SEALED_FOLDERS = ("checkpoints", "data", "states", "rollouts")
SEALED_FILES = ("recipe.toml", "samples.jsonl")
UNSEALED_FILES = ("timings.jsonl", "report.json", "report.html")
_OUTSIDE = (LEDGER, SEAL, KEY, COST, EXCERPT, *UNSEALED_FILES)  # what no record names
_WITNESSED = (("replay", "same"), ("replay", "differs"), ("privacy", "nothing left"), ("privacy", "failed"))
_HASH = re.compile(r"[0-9a-f]{64}")


class Wrong(Exception):
    """The first thing that is wrong with a run, in one line; what could steer a terminal is escaped."""

    def __init__(self, text: str) -> None:
        shown = "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
        super().__init__(shown if len(shown) < 600 else f"{shown[:300]} … {shown[-200:]}")


@dataclass(frozen=True)
class Verified:
    """What was found right. The first `sealed` lines are signed by `signer`; a torn last one is left out."""

    lines: int
    sealed: int
    root: str
    signer: str
    files: int
    bytes: int
    torn: bool
    ended: bool = True  # then the seal covers all of it, and no file is there but those that a record names
    left_out: int = 0  # files that this copy lacks, as whoever sealed the run signed
    witnesses: int = 0  # keys other than the run's whose replay came out the same
    disputed: int = 0  # and those whose didn't
    private: int = 0  # notes of privacy tests by whatever key, in which nothing left the machine
    leaking: int = 0  # and those in which something did


def verify_run(run: Path, key: str | None = None) -> Verified:
    """Check everything about a run's directory. Raises Wrong; `key`, NAME+ID+KEY or KEY, must have signed it."""
    there = list(files_there(run))
    lines, torn = read_lines(run / LEDGER)
    records = list(check_lines(lines))
    size, root, signer = check_seal(run, lines, key)
    ended = [record["line"] for record in records if record["kind"] == "run_finished"]
    if ended and not ended[0] + 1 == size == len(lines):
        told = f"the run ended with line {ended[0]}, its seal covers {size} of {len(lines)} lines"
        raise Wrong(f"{told}: some came after, or it was killed unsealed (let `clearseek run` finish it)")
    check_uses(records)
    if COST in there:
        _stated(run, COST, "cost")
    lacking = files_left_out(run) - set(there) if EXCERPT in there else frozenset()
    files = check_files(run, records, there, bool(ended), lacking)
    witnesses = count_witnesses(run, lines)
    return Verified(len(lines), size, root.hex(), signer, *files, torn, bool(ended), len(lacking), *witnesses)


# 1 lines


def read_lines(path: Path) -> tuple[list[bytes], bool]:
    """The whole lines without their newlines, and whether a torn one follows, as a kill in the middle leaves it."""
    try:
        *lines, rest = path.read_bytes().split(b"\n")
    except OSError as error:
        raise Wrong(f"{path}: cannot be read ({error.strerror}); give the directory of a run") from None
    return lines, bool(rest)


def check_lines(lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
    """Every line as a record. Wrong for the first that isn't canonical, doesn't follow, or is of an unknown kind."""
    prev = "0" * 64
    for number, line in enumerate(lines):
        record = _parsed(number, line)
        if number == 0 and repr(record.get("format", 1)) not in map(str, range(1, FORMAT + 1)):
            raise Wrong(f"line 0 is of format {record['format']!r}, unknown here: a newer clearseek wrote it")
        if repr(record.get("line")) != str(number):
            found = record.get("line")
            raise Wrong(f"line {number} says it is line {found!r}: lines were taken out, added or moved")
        if record.get("prev") != prev:
            raise Wrong(f"line {number} does not follow: line {number - 1} or this one was changed since")
        if not isinstance(record.get("kind"), str) or record["kind"] not in KINDS:
            kind = record.get("kind")
            raise Wrong(f"line {number} is of the kind {kind!r}, unknown here: a newer clearseek wrote it")
        prev = hashlib.sha256(line + b"\n").hexdigest()
        yield record


def _parsed(number: int, line: bytes) -> dict[str, Any]:
    def refuse(value: str) -> Any:
        raise Wrong(f"line {number} holds the number {value}: fractions are written in hexadecimal")

    try:
        record = json.loads(line, parse_float=refuse, parse_constant=refuse)
        is_canonical = isinstance(record, dict) and _canonical(record) == line
    except (ValueError, RecursionError) as error:
        raise Wrong(f"line {number} is not JSON ({error})") from None
    if not is_canonical:
        raise Wrong(f"line {number} is not in the one form that a ledger writes: it was changed")
    return dict(record)


def _canonical(record: dict[str, Any]) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only escapes can hold
        return json.dumps(record, separators=(",", ":")).encode()


# 2 the seal


def check_seal(run: Path, lines: Sequence[bytes], key: str | None = None) -> tuple[int, bytes, str]:
    """How many lines are sealed, their root, and the name of the key. Wrong where the seal doesn't hold."""
    note, own = _text(run / SEAL), _text(run / KEY).strip()
    name, identity, public = parse_key(own)
    if key is not None and key.strip() not in (own, base64.b64encode(b"\x01" + public).decode()):
        raise Wrong(f"{own} is not the key you gave: another key sealed the run, or yours is no key")
    size, root = parse_checkpoint(open_note(note, name, identity, public))
    if size > len(lines):
        raise Wrong(f"{SEAL} counts {size} lines, {LEDGER} has {len(lines)}: its end is lost or not copied")
    if root_of(lines[:size]) != root:
        raise Wrong(f"{SEAL} has another root than {size} lines of {LEDGER}: one of the two was replaced")
    return size, root, f"{name}+{identity.hex()}"


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode()  # as it is: an end of line of another system is a change
    except UnicodeDecodeError:
        raise Wrong(f"{path} is not text: it was damaged") from None
    except OSError as error:
        raise Wrong(f"{path}: cannot be read ({error.strerror}): lost, half copied or never sealed") from None


def parse_key(text: str) -> tuple[str, bytes, bytes]:
    """NAME+ID+KEY as its name, 4 bytes of identity and 32 bytes of an Ed25519 key."""
    name, _, rest = text.partition("+")
    identity, _, encoded = rest.partition("+")
    try:
        raw, given = base64.b64decode(encoded, validate=True), bytes.fromhex(identity)
        if name and len(raw) == 33 and raw[0] == 1 and given == key_identity(name, raw[1:]):
            return name, given, raw[1:]
    except ValueError:
        pass
    raise Wrong(f"{text[:80]!r} is no key; one is NAME+ID+KEY, as in a run's {KEY}")


def key_identity(name: str, public: bytes) -> bytes:
    """The first 4 bytes of SHA-256 of the name, a newline, the algorithm 1 (Ed25519) and the key."""
    return hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]


def open_note(note: str, name: str, identity: bytes, public: bytes, what: str = SEAL) -> str:
    """The text of a signed note. Wrong, naming `what` it is, where this key has not signed it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    body, separator, signatures = note.rpartition("\n\n")
    try:
        signed = [line.split(" ") for line in signatures.removesuffix("\n").split("\n")] if separator else []
        found = [(dash, signer, base64.b64decode(text, validate=True)) for dash, signer, text in signed]
    except ValueError:
        raise Wrong(f"{what} ends in something that is no signature: it was damaged") from None
    for dash, signer, raw in found:
        if (dash, signer, raw[:4]) != ("—", name, identity):
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], (body + "\n").encode())
        except InvalidSignature:
            raise Wrong(f"{what}: the signature of {name} is wrong: it or its text was changed") from None
        return body + "\n"
    raise Wrong(f"{what} is not signed by {name}+{identity.hex()}: another key sealed it, or it was damaged")


def _stated(run: Path, what: str, kind: str) -> str:
    """What the run's key signed in a note beside its ledger, in one line. Wrong for a note of another run."""
    name, identity, public = parse_key(_text(run / KEY).strip())
    origin, *lines = open_note(_text(run / what), name, identity, public, what).split("\n")
    if origin != f"{name}/{kind}":
        raise Wrong(f"{what} states {origin}, not {name}/{kind}: it belongs elsewhere")
    return lines[0]


def parse_checkpoint(body: str) -> tuple[int, bytes]:
    """Number of lines and root of a checkpoint's text."""
    lines = body.splitlines()
    try:
        _, size, encoded = lines
        root = base64.b64decode(encoded, validate=True)
        if str(abs(int(size))) != size or len(root) != 32:
            raise ValueError
    except ValueError:
        raise Wrong(f"{SEAL} is no checkpoint of a log: three lines, origin, size and root") from None
    return int(size), root


def leaf_hash(line: bytes) -> bytes:
    """RFC 6962 §2.1: the hash of one leaf."""
    return hashlib.sha256(b"\x00" + line).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 §2.1: the hash of two subtrees."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def root_of(lines: Sequence[bytes]) -> bytes:
    """RFC 6962 §2.1: the root of the tree over lines; pairs of neighbours, level by level, an odd last one goes up."""
    level = [leaf_hash(line) for line in lines]
    while len(level) > 1:
        paired = [node_hash(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
        level = paired + level[len(paired) * 2 :]
    return level[0] if level else hashlib.sha256(b"").digest()


# 3 what is used


def check_uses(records: Sequence[dict[str, Any]]) -> None:
    """Wrong for a stage that begins with what no earlier stage of this run left, or whose steps don't count up."""
    left, steps = dict[str, set[str]](), dict[str, int]()
    for record in records:
        kind, stage = record["kind"], str(record.get("stage"))
        at = f"line {record['line']}: stage {stage}"
        if kind in ("step", "stage_finished") and stage not in steps:
            raise Wrong(f"{at} has a {kind} before it began, or after it ended")
        if kind == "stage_started":
            steps[stage] = 0
            _check_left(_tables(record.get("parents"), record["line"], "parents"), left, f"{at} begins with")
        elif kind == "source" and (teacher := record.get("teacher")) is not None:
            _check_left(_tables([teacher], record["line"], "teacher"), left, f"{at} learnt from")
        elif kind == "step":
            steps[stage] += 1
            if repr(record.get("step")) != str(steps[stage]):
                raise Wrong(f"{at} has step {record.get('step')} where step {steps[stage]} is due")
        elif kind == "stage_finished":
            files = [(str(file["path"]), str(file["sha256"])) for file in named_files(record)]
            weights = "".join(digest for path, digest in files if path.endswith(".safetensors"))
            whole = hashlib.sha256(weights.encode()).hexdigest()  # of several files in order
            left[stage] = {*(digest for _, digest in files), whole}
            del steps[stage]


def _check_left(given: list[dict[str, Any]], left: dict[str, set[str]], what: str) -> None:
    for table in (one for one in given if one.get("stage") is not None):  # what is from elsewhere has none
        if str(table.get("sha256")) not in left.get(str(table.get("stage")), set()):
            raise Wrong(f"{what} something of {table.get('stage')} that no record of that stage names")


# 4 files


def named_files(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The files that a record vouches for: tables with a path inside the run and a SHA-256."""
    files = _tables(record.get("outputs"), record["line"], "outputs")
    for file in files:
        if not _is_inside(file.get("path")) or not _HASH.fullmatch(str(file.get("sha256"))):
            raise Wrong(f"line {record['line']} names a file without its hash, or by no path inside the run")
    return files


def _is_inside(path: Any) -> bool:
    """Whether it is the one spelling, on every system, of a place below the run."""
    is_text = isinstance(path, str) and path.isprintable() and "\\" not in path
    return is_text and not {"", ".", ".."} & set(path.split("/"))


def files_there(run: Path, folder: str = "") -> Iterator[str]:
    """Paths of all files below the run, in order. Wrong for a link, a pipe or a folder that can't be read."""
    try:
        entries = sorted(os.scandir(run / folder), key=lambda entry: entry.name)
    except OSError as error:
        raise Wrong(f"{run / folder}: cannot be read ({error.strerror}); give a run's folder") from None
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files_there(run, f"{folder}{entry.name}/")
        elif entry.is_file(follow_symlinks=False):
            yield folder + entry.name
        else:
            raise Wrong(f"{folder}{entry.name} is a link or no file at all: it may be another tomorrow")


def files_left_out(run: Path) -> frozenset[str]:
    """Paths that this copy of a run may lack, as the key that sealed it signed."""
    try:
        return frozenset(map(str, json.loads(_stated(run, EXCERPT, "excerpt"))["left_out"]))
    except (ValueError, LookupError, TypeError):
        raise Wrong(f"{EXCERPT} does not say what was left out: it was damaged") from None


def check_files(
    run: Path, records: Sequence[dict[str, Any]], there: Sequence[str], ended: bool, lacking: frozenset[str]
) -> tuple[int, int]:
    """How many files are right, and their bytes. Wrong for one that differs, is missing, or that no record names."""
    named: dict[str, tuple[str, int]] = {}
    for record in records:
        for file in named_files(record):
            digest, line = named.setdefault(file["path"], (file["sha256"], record["line"]))
            if digest != file["sha256"]:
                raise Wrong(f"line {record['line']} names {file['path']} with another hash than line {line}")
    sizes = [_check_file(run / path, path, *named[path]) for path in named if path not in lacking]
    begun = tuple(f"{record.get('stage')}." for record in records if record["kind"] == "stage_started")
    for path in there:
        folder, _, rest = path.partition("/")
        if path in named or path in _OUTSIDE or f"{path[0]}{rest}" == ".":  # hidden: a kill left it
            continue
        if ended or folder not in (*SEALED_FOLDERS, *SEALED_FILES):
            raise Wrong(f"{path} is named by no record: it came into the run afterwards")
        if rest and not f"{rest.partition('/')[0]}.".startswith(begun):
            raise Wrong(f"{path} is of a stage that no line begins: was the ledger cut back?")
    return len(sizes), sum(sizes)


def _check_file(place: Path, path: str, digest: str, line: int) -> int:
    try:
        with place.open("rb") as file:
            found, size = hashlib.file_digest(file, "sha256").hexdigest(), file.tell()
    except OSError as error:
        raise Wrong(f"{path} of line {line} cannot be read ({error.strerror}): lost or half copied") from None
    if found != digest:
        raise Wrong(f"{path} is not the file that line {line} names: its SHA-256 is {found}")
    return size


def _tables(value: Any, line: int, field: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Wrong(f"line {line}: {field} is no list of tables")
    return value


# 5 witnesses


def count_witnesses(run: Path, lines: Sequence[bytes]) -> list[int]:
    """How many keys, the run's own left out, say that its steps come out the same, and how many that they don't; how
    many privacy tests were passed, and failed. Wrong for a note that is damaged, or of another ledger.

    A note holds ORIGIN/KIND and one JSON object: kind, the key that signed it, size and root of the ledger, outcome.
    """
    found, own = dict[bytes, tuple[str, str]](), parse_key(_text(run / KEY).strip())[2]
    folder = run.with_name(f"{run.resolve().name}.witness")
    for path in sorted([*folder.glob("*.note"), *folder.glob("*.privacy")]):
        note = _text(path)
        try:
            facts = json.loads(note.split("\n")[1])
            told, size, root = (facts["kind"], facts["outcome"]), facts["size"], facts["root"]
            if told not in _WITNESSED or not isinstance(size, int) or size < 1:
                raise ValueError
            name, identity, public = parse_key(str(facts["key"]))
        except (ValueError, LookupError, TypeError, Wrong):
            raise Wrong(f"{path} is no note of a witness: it was damaged") from None
        open_note(note, name, identity, public, what=path.name)
        if size > len(lines) or root_of(lines[:size]).hex() != root:
            raise Wrong(f"{path} witnesses another ledger than {run / LEDGER}: it doesn't belong here")
        who = (
            public if told[0] == "replay" else path.name.encode()
        )  # a key counts once, a privacy test each time
        if who != own and found.get(who) != ("replay", "differs"):
            found[who] = told
    return [list(found.values()).count(each) for each in _WITNESSED]
