"""What the proof makes of what was told: each thing that goes wrong fails it, and is named."""

import pytest
from click.testing import CliRunner

from clearseek.cli.main import main
from clearseek.cli.privacy_test import command
from clearseek.config.shipped import shipped_model
from clearseek.ledger.note import key_of_run, read_statement
from clearseek.ledger.verifier import verify_run
from clearseek.privacy import proof as proofs
from clearseek.privacy.proof import prove
from tests.ledger.sealed_run import sealed_run

RIGHT = {
    "isolation": "namespace", "interfaces": ["lo"], "reaches_elsewhere": False, "attempts": [], "processes": 5,
    "activities": {"train": "done", "chat": "done"}, "canary_found": [], "kept_found": 2, "denied_packages": [],
    "denied_modules": [],
}  # fmt: skip
ATTEMPT = {"attempt": "socket.connect", "to": "192.0.2.1", "command": ["x"]}
WRONG = {
    "network": {"interfaces": ["eth0", "lo"]},
    "attempts to reach another machine": {"attempts": [ATTEMPT]},
    "processes watched": {"processes": 0},
    "train": {"activities": {"train": "failed: no", "chat": "done"}},
    "what was typed, on the disks": {"canary_found": ["/home/x/.history"]},
    "the search itself": {"kept_found": 0},
    "packages that send home": {"denied_modules": ["wandb"]},
}


@pytest.fixture
def told(monkeypatch):
    """What is told in place of doing it."""
    told = dict(RIGHT)
    monkeypatch.setattr(proofs, "_inside", lambda isolation, *_: told | {"isolation": told["isolation"]})
    return told


def test_all_that_is_right_is_right(told, tmp_path):
    proof = prove(tmp_path)
    assert proof.is_right
    assert proof.facts["outcome"] == "nothing left"


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_that_the_hook_alone_stood_guard_is_said_however_it_is_printed(told, tmp_path, monkeypatch, more):
    monkeypatch.setattr(proofs.space, "can_enter", lambda: False)
    told["isolation"] = "hook"
    result = CliRunner().invoke(command, [str(tmp_path), *more])
    assert result.exit_code == 0
    assert "the audit hook alone stood guard" in result.stderr


def test_the_model_that_comes_along_goes_by_its_name(told, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked, tell = [], proofs._inside
    monkeypatch.setattr(proofs, "_inside", lambda *given: asked.append(given) or tell(*given))
    done = CliRunner().invoke(command, ["r1-mini"])
    assert done.exit_code == 0, done.output
    ((_, _, model, run),) = asked
    assert (model, run) == (shipped_model(), None)


def test_what_is_no_model_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["privacy-test", "r1-mimi"]) == 2
    assert "no model or run at r1-mimi, and none of that name comes with clearseek" in capsys.readouterr().err


@pytest.mark.parametrize("what", WRONG)
def test_each_thing_that_is_wrong_fails_it(told, tmp_path, what):
    told |= WRONG[what]
    assert [row.what for row in prove(tmp_path).rows if not row.is_right] == [what]


def test_a_ledger_that_grew_fails_it(told, tmp_path, monkeypatch):
    run = sealed_run(tmp_path / "run")
    tell = proofs._inside

    def grow(*arguments):
        with (run / "ledger.jsonl").open("a") as file:
            file.write("{}\n")
        return tell(*arguments)

    monkeypatch.setattr(proofs, "_inside", grow)
    assert [row.what for row in prove(run, run).rows if not row.is_right] == ["the run's ledger"]


def test_of_a_sealed_run_a_signed_witness_stays_beside_it(told, tmp_path):
    run = sealed_run(tmp_path / "run")
    done = CliRunner().invoke(command, [str(run)])
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "run.witness").iterdir()
    facts = read_statement(path, "privacy", key_of_run(run))
    assert facts["outcome"] == "nothing left"
    assert facts["tested"]["network"]["found"] == "interfaces: lo"
    assert verify_run(run).witnesses == 0  # it is no replay


def test_a_leak_is_an_error_that_names_it(told, tmp_path):
    told |= WRONG["what was typed, on the disks"]
    done = CliRunner().invoke(command, [str(sealed_run(tmp_path / "run"))])
    assert str(done.exception) == "the privacy test failed: what was typed, on the disks"
