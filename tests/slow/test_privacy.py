"""`clearseek privacy-test` as users run it, on a run of its own; and that no conversation enters a ledger."""

import json
import secrets
import subprocess
import sys

import httpx
import pytest

from clearseek.config.server import Server
from clearseek.ledger.verifier import verify_run
from clearseek.privacy.search import find
from clearseek.serve.open import How, open_model
from clearseek.serve.registry import Registry
from tests.serve.live import live


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    command = [sys.executable, "-m", "clearseek", "run", "smoke", "--out", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=900)
    return folder


@pytest.mark.timeout(1800)
def test_nothing_leaves_and_nothing_stays(run):
    command = [sys.executable, "-m", "clearseek", "privacy-test", str(run), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr + done.stdout
    facts = json.loads(done.stdout)
    assert facts["outcome"] == "nothing left"
    assert facts["isolation"] in done.stderr or facts["isolation"] == "namespace"
    (witness,) = run.with_name("smoke.witness").glob("*.privacy")
    assert str(witness) in done.stderr
    verify_run(run)


@pytest.mark.timeout(900)
def test_no_conversation_enters_a_ledger(run):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    canary = f"canary{secrets.token_hex(16)}"
    settings = Server(port=0, history=run.with_name("kept"))
    registry = Registry([open_model("smoke", run, settings, How(device="cpu"))])
    with live(registry, settings) as address, httpx.Client(base_url=address, timeout=60) as client:
        client.put("/api/history", json={"keeps": True})
        talk = client.post("/api/conversations", json={}).json()["id"]
        said = client.post(f"/api/conversations/{talk}/messages", json={"text": canary}).json()
        answer = {"parent": said["id"], "settings": {"max_tokens": 8}}
        assert client.post(f"/api/conversations/{talk}/answers", json=answer).status_code == 201
        asked = {"messages": [{"role": "user", "content": canary}], "max_tokens": 8}
        assert client.post("/v1/chat/completions", json=asked).status_code == 200
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    assert find([canary], 0, run)[canary] == []
    assert find([canary], 0, run.with_name("kept"))[canary] != []  # it was kept, where its user chose
