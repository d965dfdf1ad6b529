"""Clients and test suites of others against a live server: litellm's providers, OpenAI's compatibility test of gpt-oss.

The model behind it says what a script tells it: what is tested is the wire. `make peers-serve` makes what they need.
"""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from clearseek.config.server import Server
from clearseek.serve.registry import Registry
from tests.serve.hermes import CALLS, hermes_of
from tests.serve.live import live, tiny_tokenizer
from tests.serve.scripted import scripted_model

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".venv-serve"
GPT_OSS = PEERS / "gpt-oss" / "compatibility-test"
AFTER = {"thought": "Done.", "text": "It is 17.", "calls": []}
CALLED = {
    "thought": "I add.",
    "text": "Let me see.",
    "calls": [["add", {"a": 12, "b": 5}], ["add", {"a": 1, "b": 2}]],
}
PROVIDER = """\
export const PROVIDERS = {{ clearseek: {{
  apiBaseUrl: "{address}/v1", apiKey: "x", apiType: {kinds}, modelName: "tiny", providerDetails: {{}},
}} }};
"""


def served(say, **settings):
    """A server of a model that says what `say` makes of a prompt."""
    model = scripted_model(hermes_of(tiny_tokenizer()), say, tokens_at_once=3)
    return live(Registry([model]), Server(port=0, **settings))


@pytest.mark.skipif(
    not (PEERS / "bin" / "python").exists(), reason="litellm is absent: make peers-serve makes it"
)
@pytest.mark.timeout(180)
def test_litellms_providers_read_all_of_it():
    with served(lambda prompt: "Done.</think>It is 17." if "[tool]" in prompt else CALLS) as address:
        command = [PEERS / "bin" / "python", ROOT / "tests" / "slow" / "foreign_litellm.py", address]
        done = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    told = json.loads(done.stdout.splitlines()[-1])
    for provider in ("deepseek", "deepseek_beta", "openai", "anthropic"):
        seen = told[provider]
        assert (seen["whole"], seen["streamed"], seen["after"]) == (CALLED, CALLED, AFTER), provider
        assert seen["reasons"] == ["tool_calls", "tool_calls"]
        assert seen["usage"][0] == seen["usage"][1] > 0
    kinds = ["reasoning", "message", "function_call", "function_call"]
    assert told["responses"] == {"items": kinds, "streamed": kinds, "last": "response.completed"}
    assert [one for one in told["mistakes"] if "there is no model 'none'" not in one] == []


@pytest.mark.skipif(
    not (GPT_OSS / "node_modules").exists(),
    reason="OpenAI's compatibility test is absent: make peers-serve fetches it where GitHub and npm can be reached",
)
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("kinds", "options"),
    [
        (["responses", "chat"], []),
        # streamed responses can't pass: the test looks for events inside events, where the SDK has unpacked them
        (["chat"], ["--streaming"]),
    ],
)
def test_openais_compatibility_test_of_gpt_oss(kinds, options, tmp_path):
    folder = tmp_path / "compatibility-test"
    shutil.copytree(GPT_OSS, folder, ignore=shutil.ignore_patterns("node_modules", "rollout_*", "analysis_*"))
    (folder / "node_modules").symlink_to(GPT_OSS / "node_modules")
    cases = [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]

    def say(prompt):
        if "[tool]" in prompt:
            return "It answered.</think>All is well."
        case = next(one for one in cases if one["input"] in prompt)
        call = {"name": case["tool_name"], "arguments": json.loads(case["expected_arguments"])}
        return f"A tool knows.</think><tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"

    with served(say, reasoning_alias=True) as address:
        provider = PROVIDER.format(address=address, kinds=json.dumps(kinds))
        (folder / "providers.ts").write_text(provider, encoding="utf-8")
        command = ["node_modules/.bin/tsx", "index.ts", "--provider", "clearseek", "--tries", "1", *options]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    (report,) = folder.glob("rollout_*.jsonl")
    results = [json.loads(line) for line in report.read_text().splitlines()]
    assert len(results) == len(cases) * len(kinds)
    assert [one for one in results if not one.get("success")] == []
