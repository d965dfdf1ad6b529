"""What we emit before the reference validators, with no network: mlcroissant, CycloneDX's strict one, model-signing;
the Model Openness Framework's file before its form as a JSON schema.

They live in an environment of their own (`make peers-standards`), or in the one that CLEARSEEK_STANDARDS names.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.papers.mof_schema import SCHEMA

ROOT = Path(__file__).resolve().parents[2]
STANDARDS = Path(os.environ.get("CLEARSEEK_STANDARDS", ROOT / ".venv-standards"))
pytestmark = pytest.mark.skipif(
    not (STANDARDS / "bin/python").exists(), reason="no validators here: make peers-standards installs them"
)
CROISSANT = """
import json, sys
import mlcroissant
for path in sys.argv[1:]:
    dataset = mlcroissant.Dataset(jsonld=path)
    assert not dataset.metadata.issues.errors, dataset.metadata.issues.report()
    assert not dataset.metadata.issues.warnings, dataset.metadata.issues.report()
    rows = list(dataset.records("documents"))
    first = {key.partition("/")[2]: value.decode() for key, value in rows[0].items()}
    print(json.dumps({"rows": len(rows), "first": first}))
"""
CYCLONEDX = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_7).validate_str(open(sys.argv[1], encoding="utf-8").read())
print("accepted" if error is None else f"refused: {error}"[:300])
"""

JSONSCHEMA = """
import json, sys
import jsonschema
schema, *told = (json.load(open(path, encoding="utf-8")) for path in sys.argv[1:])
kind = jsonschema.Draft202012Validator
kind.check_schema(schema)
validator = kind(schema, format_checker=kind.FORMAT_CHECKER)
for one in told:
    error = next(validator.iter_errors(one), None)
    print("accepted" if error is None else f"refused: {error.json_path}")
"""


def offline(*command: str) -> subprocess.CompletedProcess[str]:
    """Run in a network namespace of its own, where the system lets us make one."""
    apart = ["unshare", "-rn"] if _can_unshare() else []
    environment = {
        key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")
    }
    program = str(STANDARDS / "bin" / command[0])
    return subprocess.run(
        [*apart, program, *command[1:]],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def _can_unshare() -> bool:
    tool = shutil.which("unshare")
    return (
        tool is not None
        and subprocess.run([tool, "-rn", "true"], capture_output=True, timeout=20).returncode == 0
    )


def test_mlcroissant_accepts_and_reads_every_description(made: Path) -> None:
    papers = made / "run-papers"
    described = sorted(papers.glob("data/*.croissant.json"))
    done = offline("python", "-c", CROISSANT, *map(str, described))
    assert done.returncode == 0, done.stderr[-2000:]
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(described) == 4
    for path, dataset in zip(described, found, strict=True):
        rows = (path.parent / path.name.replace(".croissant.json", ".jsonl")).read_text("utf-8").splitlines()
        assert dataset == {"rows": len(rows), "first": json.loads(rows[0])}


def test_mlcroissant_accepts_a_description_of_what_is_not_given(borrowed: Path) -> None:
    described = borrowed / "run-papers/data/sft-1.croissant.json"
    done = offline("python", "-c", CROISSANT.partition("    rows =")[0], str(described))
    assert done.returncode == 0, done.stderr[-2000:]


def test_mlcroissant_refuses_rows_that_were_changed(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "run-papers/data", tmp_path / "data")
    (tmp_path / "data/rl-0.jsonl").write_text("{}\n")
    done = offline("python", "-c", CROISSANT, str(tmp_path / "data/rl-0.croissant.json"))
    assert done.returncode != 0


def test_the_strict_validator_of_cyclonedx_accepts_ours_and_no_other(
    made: Path, borrowed: Path, tmp_path: Path
) -> None:
    for run in (made, borrowed):
        bill = str(run / "run-papers/bom.cdx.json")
        assert offline("python", "-c", CYCLONEDX, bill).stdout == "accepted\n"
    bom = json.loads((made / "run-papers/bom.cdx.json").read_text("utf-8"))
    bom["metadata"]["component"]["modelCard"]["mood"] = "good"
    (tmp_path / "bom.json").write_text(json.dumps(bom))
    assert offline("python", "-c", CYCLONEDX, str(tmp_path / "bom.json")).stdout.startswith("refused")


WRONG = [
    (("framework", "name"), "Another Framework"),
    (("framework", "date"), "15 December"),
    (("release", "date"), None),
    (("release", "name"), ""),
    (("release", "license"), "MIT"),
    (("release", "architecture"), "a decoder"),
    (("release", "treatment"), "trained"),
    (("release", "components", 0, "name"), "Model soul"),
    (("release", "components", 0, "license"), None),
    (("release", "components", 0, "component_path"), ["clearseek"]),
]


def judged_by_the_framework(folder: Path, *told: Any) -> list[str]:
    """What the schema says of each file's content."""
    paths = [folder / f"{number}.json" for number in range(len(told) + 1)]
    for path, value in zip(paths, (SCHEMA, *told), strict=True):
        path.write_text(json.dumps(value))
    return offline("python", "-c", JSONSCHEMA, *map(str, paths)).stdout.splitlines()


def test_the_frameworks_schema_accepts_our_files(made: Path, borrowed: Path, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    told = [yaml.safe_load((run / "run-papers/mof.yml").read_text("utf-8")) for run in (made, borrowed)]
    assert judged_by_the_framework(tmp_path, *told) == ["accepted", "accepted"]
    assert [len(one["release"]["components"]) for one in told] == [17, 16]


def test_the_frameworks_schema_refuses_what_its_tool_cannot_read(made: Path, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    told = []
    for (*places, last), value in WRONG:
        whole = inner = yaml.safe_load((made / "run-papers/mof.yml").read_text("utf-8"))
        for place in places:
            inner = inner[place]
        inner[last] = value
        told.append(whole)
    expected = [f"refused: $.{'.'.join(map(str, where))}".replace(".0", "[0]") for where, _ in WRONG]
    assert judged_by_the_framework(tmp_path, *told) == expected


def test_model_signing_verifies_our_signature_and_finds_what_was_changed(made: Path, tmp_path: Path) -> None:
    papers = made / "run-papers"
    keys = ("--signature", str(papers / "model.sig"), "--public_key", str(papers / "model.pub"))
    model = shutil.copytree(made / "run/checkpoints/pretrain", tmp_path / "model")
    assert offline("model_signing", "verify", "key", *keys, str(model)).returncode == 0
    (model / "config.json").write_text("{}")
    assert offline("model_signing", "verify", "key", *keys, str(model)).returncode != 0
    (tmp_path / "other.pub").write_text(_another_key())
    other = (*keys[:3], str(tmp_path / "other.pub"))
    assert (
        offline("model_signing", "verify", "key", *other, str(made / "run/checkpoints/pretrain")).returncode
        != 0
    )


def _another_key() -> str:
    from cryptography.hazmat.primitives.asymmetric import ec

    from clearseek.papers.signing import public_pem

    return public_pem(ec.generate_private_key(ec.SECP256R1())).decode()
