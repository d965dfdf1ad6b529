"""Checks a run's ledger and every file that it names. Needs Python and `cryptography`, and nothing else of clearseek.

To be read in one sitting by whoever doesn't trust us. What a sealed run holds:

    ledger.jsonl   one JSON object a line: {"line":N,"prev":HASH,"kind":KIND,...}; prev is the SHA-256 of the line
                   before, newline included. No decimal fractions: a float is what C's %a prints, such as "0x1.8p+1".
    checkpoint     a signed note (c2sp.org/tlog-checkpoint): origin, number of lines, root of their Merkle tree (RFC
                   6962, leaves are lines without newline) in base64, an empty line, and a signature over these three.
    ledger.pub     the key of that signature (c2sp.org/signed-note): NAME+ID+KEY. Whether it is the key of whom you
                   trust only you can say: give it with --key.
    the rest       every file below checkpoints/, data/, states/ and rollouts/, recipe.toml and samples.jsonl, each
                   named by a record with its SHA-256. Not vouched for: timings.jsonl, report.*; cost.note signs itself.
    excerpt.note   only in a copy without weights: the paths that it lacks, signed with the key of the seal.

What is checked, in this order; the first thing that is wrong is named:
    1 every line: canonical JSON, its number, the hash of the line before, a known kind
    2 the seal: its signature, and the tree of as many lines as it counts
    3 what is used: a stage begins with nothing, and learns from no model's texts, but what earlier stages left, by hash
    4 files: each is there with its hash, or was left out as signed, and there is no other
    5 witnesses: signed notes in RUN.witness/, of people who computed steps of this very ledger again
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LEDGER, SEAL, KEY, EXCERPT = "ledger.jsonl", "checkpoint", "ledger.pub", "excerpt.note"
KINDS = frozenset(
    (
        "run",
        "stage_started",
        "source",
        "filter",
        "teacher",
        "data",
        "mix",
        "step",
        "eval",
        "stopped_early",
        "stage_finished",
        "files",
        "run_finished",
    )
)
SEALED_FOLDERS = ("checkpoints", "data", "states", "rollouts")
SEALED_FILES = ("recipe.toml", "samples.jsonl")
_HASH = re.compile(r"[0-9a-f]{64}")


class Wrong(Exception):
    """The first thing that is wrong with a run, in one line."""


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
    witnesses: int = 0  # keys other than the run's whose replay came out the same
    disputed: int = 0  # and those whose didn't
    left_out: int = 0  # files that this copy lacks, as whoever sealed the run signed


def verify_run(run: Path, key: str | None = None) -> Verified:
    """Check everything about a run's directory. Raises Wrong; `key` is the NAME+ID+KEY that must have signed it."""
    lines, torn = read_lines(run / LEDGER)
    records = list(check_lines(lines))
    size, root, signer = check_seal(run, lines, key)
    if len(lines) > size and any(record["kind"] == "run_finished" for record in records[:size]):
        raise Wrong(f"line {size} came after the run had ended, and no seal covers it")
    check_uses(records)
    files, total, left_out = check_files(run, records, files_left_out(run, key))
    same, differ = count_witnesses(run, lines)
    return Verified(len(lines), size, root.hex(), signer, files, total, torn, same, differ, left_out)


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
        if record.get("line") != number:
            raise Wrong(
                f"line {number} says it is line {record.get('line')}: lines were taken out, added or moved"
            )
        if record.get("prev") != prev:
            raise Wrong(
                f"line {number} does not follow: line {number - 1} or this one was changed after it was written"
            )
        if record.get("kind") not in KINDS:
            raise Wrong(
                f"line {number} is of the kind {record.get('kind')!r}, unknown here: a newer clearseek wrote it"
            )
        prev = hashlib.sha256(line + b"\n").hexdigest()
        yield record


def _parsed(number: int, line: bytes) -> dict[str, Any]:
    def refuse(value: str) -> Any:
        raise Wrong(f"line {number} holds the number {value}: fractions are written in hexadecimal")

    try:
        record = json.loads(line, parse_float=refuse, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise Wrong(f"line {number} is not JSON ({error})") from None
    if not isinstance(record, dict) or _canonical(record) != line:
        raise Wrong(f"line {number} is not in the one form that a ledger writes: it was changed")
    return record


def _canonical(record: dict[str, Any]) -> bytes:
    try:
        return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only escapes can hold
        return json.dumps(record, separators=(",", ":")).encode()


# 2 the seal


def check_seal(run: Path, lines: Sequence[bytes], key: str | None = None) -> tuple[int, bytes, str]:
    """How many lines are sealed, their root, and the name of the key. Wrong where the seal doesn't hold."""
    note, own = _text(run / SEAL), key or _text(run / KEY).strip()
    name, identity, public = parse_key(own)
    body = open_note(note, name, identity, public)
    size, root = parse_checkpoint(body)
    if size > len(lines):
        raise Wrong(
            f"{SEAL} counts {size} lines, {LEDGER} has {len(lines)}: its end was cut off, or it was half copied"
        )
    if root_of(lines[:size]) != root:
        raise Wrong(
            f"{SEAL} has another root than the first {size} lines of {LEDGER}: one of the two was replaced"
        )
    return size, root, f"{name}+{identity.hex()}"


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise Wrong(f"{path} is not text: it was damaged") from None
    except OSError as error:
        raise Wrong(
            f"{path}: cannot be read ({error.strerror}): the run is not sealed, or was half copied"
        ) from None


def parse_key(text: str) -> tuple[str, bytes, bytes]:
    """NAME+ID+KEY as its name, 4 bytes of identity and 32 bytes of an Ed25519 key."""
    name, _, rest = text.partition("+")
    identity, _, encoded = rest.partition("+")
    try:
        raw = base64.b64decode(encoded, validate=True)
        given = bytes.fromhex(identity)
    except ValueError:
        raise Wrong(f"{text[:80]!r} is no key; one is NAME+ID+KEY, as in a run's {KEY}") from None
    if not name or len(raw) != 33 or raw[0] != 1 or given != key_identity(name, raw[1:]):
        raise Wrong(f"{text[:80]!r} is no key; one is NAME+ID+KEY, as in a run's {KEY}")
    return name, given, raw[1:]


def key_identity(name: str, public: bytes) -> bytes:
    """The first 4 bytes of SHA-256 of the name, a newline, the algorithm 1 (Ed25519) and the key."""
    return hashlib.sha256(name.encode() + b"\n\x01" + public).digest()[:4]


def open_note(note: str, name: str, identity: bytes, public: bytes, what: str = SEAL) -> str:
    """The text of a signed note. Wrong, naming `what` it is, where this key has not signed it."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    body, separator, signatures = note.rpartition("\n\n")
    for line in signatures.splitlines() if separator else ():
        dash, _, rest = line.partition(" ")
        signer, _, encoded = rest.partition(" ")
        try:
            raw = base64.b64decode(encoded, validate=True)
        except ValueError:
            continue
        if (dash, signer, raw[:4]) != ("—", name, identity):
            continue
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], (body + "\n").encode())
        except InvalidSignature:
            raise Wrong(
                f"{what}: the signature of {name} is wrong: it or what it seals was changed"
            ) from None
        return body + "\n"
    raise Wrong(f"{what} is not signed by {name}+{identity.hex()}: another key sealed it, or it was damaged")


def parse_checkpoint(body: str) -> tuple[int, bytes]:
    """Number of lines and root of a checkpoint's text."""
    lines = body.splitlines()
    try:
        _, size, encoded = lines
        root = base64.b64decode(encoded, validate=True)
        if str(int(size)) != size or len(root) != 32:
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
    """Wrong for a stage that begins with something of this run that no earlier stage left."""
    left: dict[str, set[str]] = {}
    for record in records:
        if record["kind"] == "stage_started":
            for parent in _tables(record.get("parents"), record["line"], "parents"):
                stage = parent.get("stage")
                if stage is not None and parent.get("sha256") not in left.get(str(stage), set()):
                    raise Wrong(
                        f"line {record['line']}: stage {record.get('stage')} begins with something of {stage} that "
                        "no record of that stage names"
                    )
        elif record["kind"] == "source" and (teacher := record.get("teacher")) is not None:
            (given,) = _tables([teacher], record["line"], "teacher")
            if given.get("sha256") not in left.get(str(given.get("stage")), set()):
                raise Wrong(
                    f"line {record['line']}: stage {record.get('stage')} learnt from something of {given.get('stage')} "
                    "that no record of that stage names"
                )
        elif record["kind"] == "stage_finished":
            hashes = [str(file["sha256"]) for file in named_files(record)]
            weights = [
                str(file["sha256"])
                for file in named_files(record)
                if str(file["path"]).endswith(".safetensors")
            ]
            whole = hashlib.sha256("".join(weights).encode()).hexdigest()  # of several files in order
            left[str(record.get("stage"))] = {*hashes, whole}


# 4 files


def named_files(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The files that a record vouches for: tables with a path inside the run and a SHA-256."""
    files = _tables(record.get("outputs"), record["line"], "outputs")
    for file in files:
        path, digest = file.get("path"), file.get("sha256")
        inside = isinstance(path, str) and not Path(path).is_absolute() and ".." not in Path(path).parts
        if not inside or not isinstance(digest, str) or not _HASH.fullmatch(digest):
            raise Wrong(
                f"line {record['line']} names a file without a path inside the run or without its hash"
            )
    return files


def files_left_out(run: Path, key: str | None = None) -> frozenset[str]:
    """Paths that this copy of a run may lack. Wrong where they are not signed by the key that sealed it."""
    if not (run / EXCERPT).exists():
        return frozenset()
    note, (name, identity, public) = _text(run / EXCERPT), parse_key(key or _text(run / KEY).strip())
    open_note(note, name, identity, public, what=EXCERPT)
    try:
        origin, line, *_ = note.split("\n")
        paths = frozenset(map(str, json.loads(line)["left_out"]))
    except (ValueError, LookupError, TypeError):
        raise Wrong(f"{EXCERPT} does not say what was left out: it was damaged") from None
    if origin != f"{name}/excerpt":
        raise Wrong(f"{EXCERPT} states {origin}, not {name}/excerpt: it belongs elsewhere")
    return paths


def check_files(
    run: Path, records: Sequence[dict[str, Any]], left_out: frozenset[str] = frozenset()
) -> tuple[int, int, int]:
    """Files that are right, their bytes, and files left out. Wrong for one that differs, lacks, or has no record."""
    named: dict[str, tuple[str, int]] = {}
    for record in records:
        named |= {str(file["path"]): (str(file["sha256"]), record["line"]) for file in named_files(record)}
    lacking = {path for path in named if path in left_out and not (run / path).exists()}
    total = 0
    for path, (digest, line) in named.items():
        if path not in lacking:
            total += _check_file(run / path, path, digest, line)
    if any(record["kind"] == "run_finished" for record in records):
        _check_no_others(run, named)
    return len(named) - len(lacking), total, len(lacking)


def _check_file(place: Path, path: str, digest: str, line: int) -> int:
    found, size = hashlib.sha256(), 0
    try:
        if place.is_symlink():
            raise Wrong(f"{path}, named in line {line}, is a link: it may be another file tomorrow")
        with place.open("rb") as file:
            while block := file.read(1 << 20):
                found.update(block)
                size += len(block)
    except OSError as error:
        raise Wrong(
            f"{path}, named in line {line}, cannot be read ({error.strerror}): lost or half copied"
        ) from None
    if found.hexdigest() != digest:
        raise Wrong(f"{path} is not the file that line {line} names: its SHA-256 is {found.hexdigest()}")
    return size


def _check_no_others(run: Path, named: dict[str, tuple[str, int]]) -> None:
    there = [path for path in SEALED_FILES if (run / path).is_file()]
    for folder in SEALED_FOLDERS:
        there += [
            path.relative_to(run).as_posix() for path in sorted((run / folder).rglob("*")) if path.is_file()
        ]
    for path in there:
        if path not in named:
            raise Wrong(f"{path} is named by no record: it came into the run afterwards")


def _tables(value: Any, line: int, field: str) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Wrong(f"line {line}: {field} is no list of tables")
    return value


# 5 witnesses


def count_witnesses(run: Path, lines: Sequence[bytes]) -> tuple[int, int]:
    """How many keys, the run's own left out, say that its steps come out the same, and how many that they don't.

    A note holds ORIGIN/replay and one JSON object: the key that signed it, the size and root of the ledger that was
    replayed, and the outcome, "same" or "differs". Wrong for a note that isn't one, or is of another ledger.
    """
    own, verdicts = _text(run / KEY).strip().rpartition("+")[2], dict[str, str]()
    for path in sorted(run.with_name(f"{run.resolve().name}.witness").glob("*.note")):
        note = _text(path)
        try:
            facts = json.loads(note.split("\n")[1])
            key, outcome, size, root = (facts[name] for name in ("key", "outcome", "size", "root"))
            if outcome not in ("same", "differs") or not isinstance(size, int):
                raise ValueError
            name, identity, public = parse_key(str(key))
        except (ValueError, LookupError, TypeError, Wrong):
            raise Wrong(f"{path} is no witness of a replay: it was damaged") from None
        open_note(note, name, identity, public, what=path.name)
        if size > len(lines) or root_of(lines[:size]).hex() != root:
            raise Wrong(f"{path} witnesses another ledger than {run / LEDGER}: it doesn't belong here")
        if key.rpartition("+")[2] != own and verdicts.get(key) != "differs":
            verdicts[key] = outcome
    found = list(verdicts.values())
    return found.count("same"), found.count("differs")
