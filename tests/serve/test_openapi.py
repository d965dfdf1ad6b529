"""Our own OpenAPI description, held against what the server does by schemathesis."""

import subprocess
import sys

import httpx

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def run_schemathesis(address, folder, examples, seconds, *more):
    """Its exit code and report on a running server."""
    command = [
        sys.executable, "-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--checks", CHECKS,
        "--max-examples", str(examples), "--seed", "7", "--phases", "examples,coverage,fuzzing",
        "--no-color", "--request-timeout", "60", *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=folder, check=False)
    return done.returncode, done.stdout[-6000:] + done.stderr[-2000:]


def test_every_answer_has_a_described_shape(server):
    """Without one, an answer would conform whatever it was."""
    description = httpx.get(f"{server}/openapi.json").json()
    open_ended = []
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            content = operation["responses"]["200"]["content"]
            schema = content.get("application/json", {}).get("schema", {})
            if not schema.get("$ref") and "text/plain" not in content:
                open_ended.append((method, path))
    assert open_ended == []


def test_the_server_does_what_its_description_says(server, tmp_path):
    """A part of it; tests/slow has the whole."""
    part = "--include-path-regex", "^/(v1/chat/completions|tokenize|user/balance)$"
    code, report = run_schemathesis(server, tmp_path, 2, 110, *part)
    assert code == 0, report
