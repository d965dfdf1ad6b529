"""The verifier against published vectors, and against a hundred ways to change a run."""

import ast
import base64
import hashlib
import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearseek.config.errors import RunError
from clearseek.ledger import verifier
from clearseek.ledger.lines import encode_line, exact, read_back
from clearseek.ledger.log import Ledger
from clearseek.ledger.seal import check_not_cut, seal
from clearseek.ledger.verifier import Wrong, open_note, parse_key, root_of, verify_run
from tests.ledger.sealed_run import sealed_run
from tests.ledger.tampering import chained, change_byte, edit, lines_of, records_of, write_lines

# RFC 6962's reference leaves and roots, as Certificate Transparency's own tests have them
LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = {
    1: "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    2: "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    3: "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    7: "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    8: "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
}
# the example of Go's golang.org/x/mod/sumdb/note
KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NOTE = """If you think cryptography is the answer to your problem,
then you don't know what your problem is.

— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=
"""


@pytest.mark.parametrize("count", ROOTS)
def test_roots_are_those_of_rfc_6962(count):
    assert root_of([bytes.fromhex(leaf) for leaf in LEAVES[:count]]).hex() == ROOTS[count]


def test_the_root_of_nothing_is_the_hash_of_nothing():
    assert root_of([]) == hashlib.sha256(b"").digest()


def test_a_note_of_another_program_opens():
    name, identity, public = parse_key(KEY)
    assert open_note(NOTE, name, identity, public).startswith("If you think")
    with pytest.raises(Wrong, match="signature of PeterNeumann is wrong"):
        open_note(NOTE.replace("cryptography", "Cryptography"), name, identity, public)


def test_a_whole_run_is_right(tmp_path):
    run = sealed_run(tmp_path / "run")
    found = verify_run(run)
    assert (found.lines, found.sealed, found.files, found.torn) == (48, 48, 7, False)
    (run / "timings.jsonl").write_text("{}\n")  # the clock and the report are nobody's evidence
    assert verify_run(run) == found


def test_a_torn_last_line_is_left_out_and_never_the_line_before(tmp_path):
    run = sealed_run(tmp_path / "run")
    with (run / "ledger.jsonl").open("ab") as file:
        file.write(b'{"line":48,"prev":"abc')
    found = verify_run(run)
    assert (found.lines, found.torn) == (48, True)


def sign_again(run, monkeypatch, tmp_path):
    """The seal of somebody else, over the ledger as it now is."""
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "another.key"))
    seal(run, lines_of(run))


FILES = (
    "recipe.toml", "samples.jsonl", "data/kept.jsonl", "checkpoints/pretrain/model.safetensors",
    "checkpoints/pretrain/config.json", "checkpoints/sft/model.safetensors", "checkpoints/sft/config.json",
)  # fmt: skip
TAMPERINGS = {
    **{
        f"a bit of {name} at {at}": (lambda run, n=name, a=at: change_byte(run / n, a))
        for name in FILES
        for at in (0, 9)
    },
    **{f"{name} is gone": (lambda run, n=name: (run / n).unlink()) for name in FILES},
    **{f"{name} is longer": (lambda run, n=name: (run / n).open("ab").write(b" ")) for name in FILES},
    **{
        f"another file {name}": (lambda run, n=name: (run / n).write_text("x"))
        for name in ("data/more.jsonl", "checkpoints/sft/extra.safetensors", "checkpoints/sft/.hidden")
    },
    **{
        f"a byte of line {number}": (
            lambda run, n=number: write_lines(
                run,
                [
                    line if i != n else line[:-9] + bytes([line[-9] ^ 1]) + line[-8:]
                    for i, line in enumerate(lines_of(run))
                ],
            )
        )
        for number in (0, 1, 5, 22, 23, 44, 45, 46, 47)
    },
    **{
        f"line {number} is taken out": (
            lambda run, n=number: write_lines(run, [line for i, line in enumerate(lines_of(run)) if i != n])
        )
        for number in (0, 1, 7, 22, 45, 46, 47)
    },
    **{
        f"line {number} is taken out and the chain mended": (
            lambda run, n=number: write_lines(
                run, chained([r for i, r in enumerate(records_of(run)) if i != n])
            )
        )
        for number in (0, 3, 22, 45, 46, 47)
    },
    **{
        f"lines {number} and {number + 1} change places": (
            lambda run, n=number: write_lines(run, [*(x := lines_of(run))[:n], x[n + 1], x[n], *x[n + 2 :]])
        )
        for number in (0, 4, 21, 22, 46)
    },
    **{
        f"a line comes in at {number}": (
            lambda run, n=number: write_lines(run, [*(x := lines_of(run))[:n], x[5], *x[n:]])
        )
        for number in (0, 1, 6, 30, 48)
    },
    **{
        f"a line comes in at {number} and the chain is mended": (
            lambda run, n=number: write_lines(run, chained([*(r := records_of(run))[:n], r[5], *r[n:]]))
        )
        for number in (1, 6, 30, 48)
    },
    **{
        f"only {count} lines are left": (lambda run, c=count: write_lines(run, lines_of(run)[:c]))
        for count in (0, 1, 22, 47)
    },
    "a loss is edited": lambda run: edit(run, 3, b'"loss":"0x', b'"loss":"0x1'),
    "a loss is edited and the chain mended": lambda run: write_lines(
        run, chained([{**r, "loss": "0x1.8p+1"} if "loss" in r else r for r in records_of(run)])
    ),
    "a fraction in decimal": lambda run: write_lines(
        run, chained([{**r, "x": 0.5} for r in records_of(run)])
    ),
    "a number that is none": lambda run: edit(run, 3, b'"step":2', b'"step":NaN'),
    "spaces": lambda run: edit(run, 3, b'"step":2', b'"step": 2'),
    "an escape where none is needed": lambda run: edit(run, 45, "한".encode(), b"\\ud55c"),
    "a key twice": lambda run: edit(run, 3, b'"step":2', b'"step":9,"step":2'),
    "a line that is a list": lambda run: write_lines(run, [*lines_of(run), b"[]\n"]),
    "a line that is nothing": lambda run: write_lines(run, [*lines_of(run), b"\n"]),
    "bytes that are no text": lambda run: edit(run, 45, "한".encode(), b"\xff\xff\xff"),
    "a kind that nobody knows": lambda run: write_lines(
        run, chained([{**r, "kind": "magic"} for r in records_of(run)])
    ),
    "a parent that nobody left": lambda run: edit(run, 23, b'"sha256":"', b'"sha256":"0'),
    "the seal is gone": lambda run: (run / "checkpoint").unlink(),
    "the key is gone": lambda run: (run / "ledger.pub").unlink(),
    "the seal counts less": lambda run: (run / "checkpoint").write_text(
        (run / "checkpoint").read_text().replace("\n48\n", "\n40\n")
    ),
    "the seal counts more": lambda run: (run / "checkpoint").write_text(
        (run / "checkpoint").read_text().replace("\n48\n", "\n49\n")
    ),
    "the seal counts with a sign": lambda run: (run / "checkpoint").write_text(
        (run / "checkpoint").read_text().replace("\n48\n", "\n+48\n")
    ),
    "the seal without its signature": lambda run: (run / "checkpoint").write_text(
        (run / "checkpoint").read_text().partition("\n\n")[0] + "\n\n"
    ),
    "the seal is no text": lambda run: (run / "checkpoint").write_bytes(b"\xff\xfe"),
    "the key is another's": lambda run: (run / "ledger.pub").write_text(KEY),
    "the key is nonsense": lambda run: (run / "ledger.pub").write_text("key"),
    "a link in the place of a model": lambda run: (
        shutil.move(run / FILES[3], run.parent / "moved"),
        (run / FILES[3]).symlink_to(run.parent / "moved"),
    ),
    **{
        f"a bit of the seal at {at}": (lambda run, a=at: change_byte(run / "checkpoint", a))
        for at in (3, 30, 60, 75, 90, 105, 120)
    },
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return sealed_run(tmp_path_factory.mktemp("whole") / "run")


@pytest.mark.parametrize("name", TAMPERINGS)
def test_what_was_changed_is_found_and_named(whole, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    TAMPERINGS[name](run)
    with pytest.raises(Wrong) as found:
        verify_run(run)
    assert "\n" not in str(found.value)
    named = [file for file in FILES if file in name]
    assert all(file in str(found.value) for file in named)


def test_there_are_a_hundred_of_them():
    assert len(TAMPERINGS) >= 100


def test_a_seal_by_another_key_is_only_found_by_who_knows_the_right_one(whole, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    right = (run / "ledger.pub").read_text().strip()
    verify_run(run, right)
    write_lines(run, chained([{**r, "seed": 2} if "seed" in r else r for r in records_of(run)]))
    sign_again(run, monkeypatch, tmp_path)
    verify_run(run)  # whole in itself
    with pytest.raises(Wrong, match="not the key you gave: another key sealed the run"):
        verify_run(run, right)


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_byte_of_the_ledger_can_be_another(whole, at, flip):
    raw = bytearray((whole / "ledger.jsonl").read_bytes())
    raw[at % (len(raw) - 1)] ^= flip
    lines = bytes(raw).split(b"\n")[:-1]
    with pytest.raises(Wrong):
        _ = list(verifier.check_lines(lines)), verifier.check_seal(whole, lines)


def test_ten_thousand_lines_take_less_than_a_second(tmp_path):
    path = tmp_path / "ledger.jsonl"
    with Ledger(path) as ledger:
        ledger.append("stage_started", "pretrain")
        for step in range(1, 10_000):
            ledger.append(
                "step", "pretrain", step=step, loss=random.Random(step).random(), grad_norm=0.1 * step
            )
        seal(tmp_path, ledger.lines)
    times = []
    for _ in range(3):
        started = time.process_time()
        assert verify_run(tmp_path).lines == 10_000
        times.append(time.process_time() - started)
    assert min(times) < 1
    assert path.stat().st_size < 10e6


@given(
    st.recursive(
        st.floats(allow_nan=False, allow_infinity=False) | st.text() | st.from_regex(r"=*0x1\.8p\+1"),
        st.lists,
    )
)
def test_floats_come_back_to_the_bit_and_texts_that_look_like_one_too(value):
    line = encode_line({"value": value}, canonical=True)
    found = read_back(json.loads(line, parse_float=pytest.fail))["value"]
    assert found == value
    assert repr(found) == repr(value)
    assert exact(found) == exact(value)


def test_the_verifier_reads_nothing_of_the_rest_of_clearseek():
    source = Path(verifier.__file__).read_text()
    assert len(source.splitlines()) < 400
    modules = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(str(node.module).partition(".")[0])
    assert modules - {"cryptography"} <= set(sys.stdlib_module_names)


def test_the_manual_says_of_every_kind_what_it_holds():
    text = (Path(__file__).resolve().parents[2] / "docs/ledger.md").read_text(encoding="utf-8")
    table = text.partition("## What is in a run, and where")[2].partition("\n## ")[0]
    assert {kind for kind in verifier.KINDS if f"`{kind}`" not in table} == set()


def test_the_command_needs_no_torch_and_says_what_it_found(tmp_path):
    run = sealed_run(tmp_path / "run")
    code = (
        "import sys; from clearseek.cli.main import main; code = main(sys.argv[1:]); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "ledger", "verify", str(run)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "48 lines, every link holds" in done.stdout
    assert "7 files" in done.stdout
    change_byte(run / FILES[3], 5)
    done = subprocess.run(
        [sys.executable, "-c", code, "ledger", "verify", str(run)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert FILES[3] in done.stderr


def test_nothing_is_written_behind_a_cut(tmp_path):
    run = sealed_run(tmp_path / "run")
    check_not_cut(run, 48)
    check_not_cut(run, 60)
    with pytest.raises(RunError, match="47 lines, its seal counts 48"):
        check_not_cut(run, 47)
    (run / "checkpoint").write_text("nothing")
    with pytest.raises(RunError, match="damaged"):
        check_not_cut(run, 48)


def test_a_key_is_made_once_and_for_its_owner_alone(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "ledger.key"
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(path))
    first = sealed_run(tmp_path / "a")
    second = sealed_run(tmp_path / "b", steps=3)
    assert path.stat().st_mode & 0o777 == 0o600
    keys = [base64.b64decode((run / "ledger.pub").read_text().split("+", 2)[2]) for run in (first, second)]
    assert keys[0] == keys[1]
    path.write_text("short")
    with pytest.raises(RunError, match="64 hexadecimal digits"):
        seal(first, lines_of(first))


def test_a_place_where_no_key_can_be_kept_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CLEARSEEK_LEDGER_KEY", str(tmp_path / "file" / "ledger.key"))
    with pytest.raises(RunError, match="CLEARSEEK_LEDGER_KEY"):
        sealed_run(tmp_path / "run")
