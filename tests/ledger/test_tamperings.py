"""What else a stranger would try: spellings and files that `test_verifier` hasn't, and what an owner may forge."""

import base64
import json
import os
import shutil
import unicodedata

import pytest

from clearseek.cli.main import main
from clearseek.ledger.lines import file_sha256
from clearseek.ledger.log import Ledger, read
from clearseek.ledger.note import signed_note, signed_statement
from clearseek.ledger.seal import log_name, seal, unnamed_files
from clearseek.ledger.verifier import Wrong, parse_key, verify_run
from clearseek.ledger.witness import write_witness
from tests.ledger.sealed_run import model_of, sealed_run
from tests.ledger.tampering import (
    chained,
    change_byte,
    edit,
    lines_of,
    records_of,
    signed_anew,
    write_lines,
)

MODEL = "checkpoints/sft/model.safetensors"


def fuller_run(directory):
    """A run of every kind of line and of file: states, rollouts, a teacher, what a filter dropped, a signed cost."""
    for folder in ("data/sft", "states/rl", "rollouts/rl"):
        (directory / folder).mkdir(parents=True)
    (directory / "recipe.toml").write_text('name = "tiny"\n')
    (directory / "samples.jsonl").write_text('{"line":0}\n')
    (directory / "states/rl/leaves.jsonl").write_text('{"step":1}\n')
    (directory / "report.json").write_text("{}")
    (directory / "timings.jsonl").write_text("{}\n")
    with Ledger(directory / "ledger.jsonl") as ledger:
        ledger.append("run", recipe="tiny", seed=1)
        teacher = write_stage(ledger, directory, "sft", [])
        ledger.append(
            "source", "rl", data=0, documents=3, teacher={"stage": "sft", "sha256": teacher}, note="한글"
        )
        ledger.append("filter", "rl", data=0, outputs=[written(directory, "data/sft/0.dropped.jsonl")])
        ledger.append("teacher", "rl", sha256=teacher)
        write_stage(ledger, directory, "rl", [{"stage": "sft", "sha256": teacher}])
        early_lines = list(ledger.lines)
        ledger.append("files", outputs=unnamed_files(directory, read(directory / "ledger.jsonl")))
        ledger.append("run_finished")
        seal(directory, early_lines)
        early = (directory / "checkpoint").read_text()
        seal(directory, ledger.lines)
        note, _ = signed_statement(log_name(ledger.lines[0]), "cost", {"stages": []})
    (directory / "cost.note").write_text(note)
    return directory, early, len(early_lines)


def write_stage(ledger, directory, name, parents):
    ledger.append("stage_started", name, kind_of_stage=name, parents=parents)
    for step in (1, 2, 3):
        outputs = [written(directory, f"rollouts/rl/step-{step}.safetensors")] if name == "rl" else []
        ledger.append("step", name, step=step, loss=1 / step, tokens=0, outputs=outputs)
    ledger.append("eval", name, step=-1, pass_at_1=0.5)
    digest = model_of(directory, name)
    ledger.append(
        "stage_finished", name, outputs=[{"path": f"checkpoints/{name}/model.safetensors", "sha256": digest}]
    )
    return digest


def written(directory, path):
    (directory / path).write_bytes(path.encode() * 9)
    return {"path": path, "sha256": file_sha256(directory / path)}


@pytest.fixture(scope="module")
def key(tmp_path_factory):
    path = tmp_path_factory.mktemp("key") / "ledger.key"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CLEARSEEK_LEDGER_KEY", str(path))
        yield path


@pytest.fixture(scope="module")
def whole(tmp_path_factory, key):
    folder = tmp_path_factory.mktemp("whole")
    found = fuller_run(folder / "run")
    sealed_run(folder / "other")
    verify_run(folder / "run")
    return found


@pytest.fixture
def run(whole, tmp_path):
    shutil.copytree(whole[0].parent, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


# Bytes of the ledger: spellings that parse alike, and lines that parse to something strange

LINE = 3  # a step


def respelled(old, new):
    return lambda run: edit(run, LINE, old, new)


def instead(line):
    return lambda run: write_lines(run, [*lines_of(run)[:LINE], line, *lines_of(run)[LINE + 1 :]])


def head(run):
    return json.loads(lines_of(run)[LINE])["prev"].encode()


SPELLINGS = {
    "a number that is true": lambda run: edit(run, 1, b'{"line":1,', b'{"line":true,'),
    "a number that is text": respelled(b'{"line":3,', b'{"line":"3",'),
    "a number with a point": respelled(b'{"line":3,', b'{"line":3.0,'),
    "minus nothing": respelled(b'"tokens":0', b'"tokens":-0'),
    "an exponent": respelled(b'"step":2', b'"step":2E0'),
    "a fullwidth digit": respelled(b'"step":2', '"step":２'.encode()),
    "a leading zero": respelled(b'"step":2', b'"step":02'),
    "five thousand digits": respelled(b'"step":2', b'"step":' + b"9" * 5000),
    "infinity": respelled(b'"step":2', b'"step":-Infinity'),
    "an escaped slash": respelled(b'"kind":"step"', b'"kind":"st\\/ep"'),
    "an escaped letter": respelled(b'"kind":"step"', b'"kind":"\\u0073tep"'),
    "another float of the same value": respelled(b"0x1.0000000000000p-1", b"0x0.8000000000000p+0"),
    "decomposed letters": lambda run: edit(
        run, 7, "한글".encode(), unicodedata.normalize("NFD", "한글").encode()
    ),
    "half a character": lambda run: edit(run, 7, "한".encode(), b"\xed\xa0\x80"),
    "a kind that is a list": respelled(b'"kind":"step"', b'"kind":["step"]'),
    "a kind that is a table": respelled(b'"kind":"step"', b'"kind":{}'),
    "a kind with the terminal's own codes": respelled(b'"kind":"step"', b'"kind":"\\u001b[2J\\nok"'),
    "keys in another order": respelled(b'"step":2,"loss":', b'"loss":2,"step":'),
    "an end of line of another system": respelled(b"}\n", b"}\r\n"),
    "nothing behind the line": respelled(b"}\n", b"}\0\n"),
    "a mark before the first line": lambda run: edit(run, 0, b'{"line"', b'\xef\xbb\xbf{"line"'),
    "another encoding": lambda run: instead(lines_of(run)[LINE].decode().encode("utf-16-le"))(run),
    "a line of five million blanks": instead(b" " * 5_000_000 + b"\n"),
    "a hundred thousand lists in each other": instead(b"[" * 100_000 + b"\n"),
    "a table in a table nine hundred times": lambda run: edit(
        run, LINE, b'"step":2', b'"step":' + b'{"a":' * 900 + b"1" + b"}" * 900
    ),
}

# The ledger and its seal as wholes


def of_the_other(name):
    return lambda run: shutil.copy(run.parent / "other" / name, run / name)


def rename_key(run):
    """The same name and what looks like the same id, another key."""
    name, identity, _ = parse_key((run / "ledger.pub").read_text().strip())
    other = base64.b64encode(b"\x01" + bytes(32)).decode()
    (run / "ledger.pub").write_text(f"{name}+{identity.hex()}+{other}\n")


def other_signature(run):
    """By another key, under the name and the id of the right one."""
    note = (run / "checkpoint").read_text()
    foreign, _ = signed_note("clearseek/other", note.partition("\n\n")[0] + "\n")
    raw = base64.b64decode(foreign.split()[-1])
    _, identity, _ = parse_key((run / "ledger.pub").read_text().strip())
    body, _, line = note.partition("\n\n")
    forged = base64.b64encode(identity + raw[4:-1] + bytes([raw[-1] ^ 1])).decode()
    (run / "checkpoint").write_text(f"{body}\n\n{' '.join(line.split()[:2])} {forged}\n")


def in_seal(old, new):
    def change(run):
        text = (run / "checkpoint").read_text()
        assert old in text
        (run / "checkpoint").write_text(text.replace(old, new, 1), newline="")

    return change


WHOLES = {
    "two ledgers, one behind the other": lambda run: write_lines(
        run, [*lines_of(run), *lines_of(run.parent / "other")]
    ),
    "the ledger of another run": of_the_other("ledger.jsonl"),
    "the seal of another run": of_the_other("checkpoint"),
    "the key of another run": of_the_other("ledger.pub"),
    "another key under the same name": rename_key,
    "another signature under the same name": other_signature,
    "the seal with more behind it": lambda run: (run / "checkpoint").open("a").write("and more\n"),
    "the seal with ends of line of another system": in_seal("\n", "\r\n"),
    "the last line twice": lambda run: write_lines(run, chained([*records_of(run), records_of(run)[-1]])),
    "a step twice, numbers mended": lambda run: write_lines(
        run, chained([*(r := records_of(run))[:4], r[3], *r[4:]])
    ),
    "an empty ledger": lambda run: write_lines(run, []),
}

# Files


def moved(run, path):
    place = run.parent / "moved"
    shutil.move(run / path, place)
    return place


def linked(path):
    return lambda run: (run / path).symlink_to(moved(run, path))


def piped(path):
    def change(run):
        (run / path).unlink(missing_ok=True)
        os.mkfifo(run / path)

    return change


def added(path, content="x"):
    def change(run):
        (run / path).parent.mkdir(parents=True, exist_ok=True)
        (run / path).write_text(content)

    return change


def replaced(path, other):
    return lambda run: shutil.copy(run / other, run / path)


def swap(run):
    first, second = run / "checkpoints/sft/config.json", run / MODEL
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


FILES = {
    f"a bit of {path}": (lambda run, p=path: change_byte(run / p, 2))
    for path in ("states/rl/leaves.jsonl", "rollouts/rl/step-2.safetensors", "data/sft/0.dropped.jsonl")
} | {
    "a link: a model's folder": linked("checkpoints/sft"),
    "a link: all models": linked("checkpoints"),
    "a link: the recipe": linked("recipe.toml"),
    "a link: the ledger": linked("ledger.jsonl"),
    "a link: the seal": linked("checkpoint"),
    "a link: the key": linked("ledger.pub"),
    "a link more, to a folder": lambda run: (run / "data/more").symlink_to(run.parent),
    "a link more, to nothing": lambda run: (run / "states/more").symlink_to("nowhere"),
    "a pipe: a model": piped(MODEL),
    "a pipe: the ledger": piped("ledger.jsonl"),
    "a pipe: the seal": piped("checkpoint"),
    "a pipe more": piped("data/more"),
    "a folder: a model": lambda run: ((run / MODEL).unlink(), (run / MODEL).mkdir()),
    "a folder: the recipe": lambda run: ((run / "recipe.toml").unlink(), (run / "recipe.toml").mkdir()),
    "a folder: the seal": lambda run: ((run / "checkpoint").unlink(), (run / "checkpoint").mkdir()),
    "a model where commands look first": added("model.safetensors"),
    "a folder that no run has": added("blobs/x"),
    "a tokenizer more": added("checkpoints/sft/tokenizer.json", "{}"),
    "a file whose name has two lines": added("data/a\nb"),
    "a file whose name is no text": lambda run: open(os.fsencode(run / "data") + b"/\xff", "w").close(),
    "a model under another name": lambda run: (run / MODEL).rename(run / "checkpoints/sft/model-2.safetensors"),
    "a model under the name of a step": lambda run: (run / MODEL).rename(run / "checkpoints/sft/Model.safetensors"),
    "an earlier model for the later": replaced("checkpoints/rl/model.safetensors", MODEL),
    "two files in each other's place": swap,
    "a configuration that says the same": lambda run: (run / "checkpoints/sft/config.json").write_text(
        '{"hidden_size": 64}'
    ),
    "nothing in a rollout": lambda run: (run / "rollouts/rl/step-1.safetensors").write_bytes(b""),
    "a state of before": added("states/sft/step-1/state.safetensors"),
    "a cost that is edited": lambda run: (run / "cost.note").write_text(
        (run / "cost.note").read_text().replace("[]", "[ ]")
    ),
    "a cost of another run": lambda run: (run / "cost.note").write_text(
        signed_statement("clearseek/0000", "cost", {})[0]
    ),
    "a cost that is no note": lambda run: (run / "cost.note").write_bytes(b"\xff"),
}  # fmt: skip

# Witnesses


def witnessed(change):
    def tamper(run):
        path = write_witness(run, {"outcome": "same"})
        change(path)

    return tamper


def privacy_tested(change):
    def tamper(run):
        change(write_witness(run, {"outcome": "failed"}, "privacy"))

    return tamper


WITNESSES = {
    "a witness whose outcome is edited": witnessed(
        lambda path: path.write_text(path.read_text().replace('"same"', '"differs"'))
    ),
    "a witness of another ledger": lambda run: (
        write_witness(run.parent / "other", {"outcome": "same"}),
        (run.parent / "other.witness").rename(run.parent / "run.witness"),
    ),
    "a witness that is a folder": witnessed(lambda path: (path.unlink(), path.mkdir())),
    "a privacy test that failed and says otherwise": privacy_tested(
        lambda path: path.write_text(path.read_text().replace('"failed"', '"nothing left"'))
    ),
    "a privacy test of another ledger": lambda run: (
        write_witness(run.parent / "other", {"outcome": "failed"}, "privacy"),
        (run.parent / "other.witness").rename(run.parent / "run.witness"),
    ),
    "a privacy test that says nothing": lambda run: write_witness(run, {"outcome": "fine"}, "privacy"),
    "a privacy test of no kind": privacy_tested(
        lambda path: path.write_text(path.read_text().replace('"kind":', '"k":'))
    ),
    "a witness that is no text": witnessed(lambda path: path.write_bytes(b"\xff")),
}

# Signed by the run's own key: what its owner can't say without contradiction


def told(change):
    def tamper(run):
        records = records_of(run)
        signed_anew(run, change(records) or records)

    return tamper


def put(kind, **fields):
    return told(lambda records: next(r for r in records if r["kind"] == kind).update(fields))


def named(**table):
    return put("files", outputs=[table])


DIGEST = "0" * 64
SIGNED = {
    "a newer format": told(lambda r: r[0].update(format=2)),
    "a format before the first": told(lambda r: r[0].update(format=0)),
    "a format that is text": told(lambda r: r[0].update(format="1")),
    "a format that is true": told(lambda r: r[0].update(format=True)),
    "a path with nothing in it": named(path="data/\0", sha256=DIGEST),
    "a path that is half a character": named(path="data/\ud800", sha256=DIGEST),
    "a path spelled otherwise": named(path="data/./x", sha256=DIGEST),
    "a path of the other system": named(path="..\\x", sha256=DIGEST),
    "a path out of the run": named(path="../other/recipe.toml", sha256=DIGEST),
    "a path longer than any": named(path="data/" + "x" * 5000, sha256=DIGEST),
    "a path that is the run": named(path=".", sha256=DIGEST),
    "a hash that is a list": named(path="data/x", sha256=[]),
    "a parent whose hash is a list": told(lambda r: r[10].update(parents=[{"stage": "sft", "sha256": []}])),
    "a teacher whose hash is a list": put("source", teacher={"stage": "sft", "sha256": []}),
    "a teacher that is a list": put("source", teacher=[[]]),
    "a file with two hashes": told(
        lambda r: [*r[:-1], {"kind": "files", "outputs": [{"path": MODEL, "sha256": DIGEST}]}, r[-1]]
    ),
    "a step that is missing": told(lambda r: [*r[:3], *r[4:]]),
    "a step twice": told(lambda r: [*r[:4], r[3], *r[4:]]),
    "a stage that ends twice": told(lambda r: [*r[:7], r[6], *r[7:]]),
    "a step of a stage that nobody began": told(lambda r: [r[0], r[2], *r[1:2], *r[3:]]),
    "an end before the end": told(lambda r: [*r[:-2], r[-1], r[-2]]),
}  # fmt: skip

TAMPERINGS = SPELLINGS | WHOLES | FILES | WITNESSES | SIGNED


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_changed_is_found_in_one_line(run, name):
    TAMPERINGS[name](run)
    with pytest.raises(Wrong) as found:
        verify_run(run)
    assert str(found.value).isprintable(), str(found.value)
    print(found.value)


def test_there_are_fifty_and_more():
    assert len(TAMPERINGS) >= 50


def test_a_whole_run_is_right(run):
    found = verify_run(run)
    assert (found.lines, found.sealed, found.files, found.ended) == (18, 18, 11, True)


# A ledger and a seal of before are right in themselves: what is beside them and what is said of them tells


def test_an_earlier_seal_covers_less_than_a_run_that_has_ended(run, whole):
    (run / "checkpoint").write_text(whole[1])
    with pytest.raises(Wrong, match=r"ended with line 17, its seal covers 16 of 18 lines: some came after"):
        verify_run(run)


def test_an_earlier_ledger_beside_files_of_a_later_stage_is_told(run, whole):
    _, early, size = whole
    write_lines(run, lines_of(run)[:size])
    (run / "checkpoint").write_text(early)
    assert not verify_run(run).ended
    seal(run, lines_of(run)[:7])  # before the second stage began
    write_lines(run, lines_of(run)[:7])
    with pytest.raises(Wrong, match=r"checkpoints/rl/config.json is of a stage that no line begins"):
        verify_run(run)


def test_a_run_that_has_not_ended_is_said_to_be_so(run, whole, capsys):
    write_lines(run, lines_of(run)[: whole[2]])
    (run / "checkpoint").write_text(whole[1])
    assert main(["ledger", "verify", str(run)]) == 0
    said = capsys.readouterr().out
    assert "the run has not ended: later lines may be missing" in said
    assert "no others" not in said
    assert "not vouched for: timings.jsonl, report.json" in said


# Whose key it is


def test_the_last_part_of_a_key_is_the_same_in_all_runs_of_its_owner(run, whole, capsys):
    keys = {(place / "ledger.pub").read_text().strip() for place in (run, run.parent / "other")}
    (alone,) = {key.split("+", 2)[2] for key in keys}
    assert len(keys) == 2
    for place in (run, run.parent / "other"):
        assert verify_run(place, alone) == verify_run(place)
    for wrong in (alone[:-1], alone.replace(alone[9], "A" if alone[9] != "A" else "B"), "", "é"):
        with pytest.raises(Wrong, match="is not the key you gave"):
            verify_run(run, wrong)
    assert main(["ledger", "verify", str(run)]) == 0
    assert "whose key that is, no run can show" in capsys.readouterr().out
    assert main(["ledger", "verify", str(run), "--key", alone]) == 0
    assert "by the key you gave" in capsys.readouterr().out


def test_all_of_a_run_sealed_anew_by_another_is_found_by_who_has_the_right_key(run, tmp_path, monkeypatch):
    right = (run / "ledger.pub").read_text().strip()
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "another.key"))
    (run / "cost.note").unlink()
    signed_anew(run, [{**record, "seed": 2} if "seed" in record else record for record in records_of(run)])
    assert verify_run(run).ended
    for key in (right, right.split("+", 2)[2]):
        with pytest.raises(Wrong, match="another key sealed the run"):
            verify_run(run, key)


def test_its_own_key_is_no_witness_however_often_it_signs(run, tmp_path, monkeypatch):
    write_witness(run, {"outcome": "same"})
    assert verify_run(run).witnesses == 0
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "another.key"))
    write_witness(run, {"outcome": "same"})
    assert verify_run(run).witnesses == 1
