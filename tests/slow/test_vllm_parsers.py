"""vLLM's parsers of thoughts and calls as a second source: from the same replies both read the same.

Where they don't, the case is in `DIFFERENT` with what vLLM makes of it, so that it is known when that changes.
"""

# ruff: noqa: E501  (replies stand here as models write them)

import json
import re
import subprocess
from pathlib import Path

import pytest

from benchmarks.engine_bench.workers import ENGINES
from clearseek.text.thoughts import Tags
from clearseek.text.tool_calls.deepseek import DeepSeekCalls
from clearseek.text.tool_calls.dsml import DsmlCalls
from clearseek.text.tool_calls.json_forms import JsonCalls
from clearseek.text.tool_calls.recognise import ReplyForm
from tests.text.tool_calls.replies import CALL, FORMS, SCHEMAS, TEXTS, arguments, gathered

PYTHON = ENGINES["vllm"].python
SCRIPT = Path(__file__).with_name("vllm_parsers.py")
pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason="vLLM is absent: make peers-vllm makes it")

FUNCTIONS = [
    {"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()
]
THINK = ["<think>", "</think>"]
# our form, vLLM's parser of tools and of thoughts, special tokens
FAMILIES = {
    "hermes": (FORMS["hermes"], "hermes", "deepseek_r1", ["<tool_call>", "</tool_call>"]),
    "mimo": (FORMS["xml"], "mimo", "mimo", ["<tool_call>", "</tool_call>"]),
    "ernie": (
        ReplyForm(calls=JsonCalls(), answer=Tags("<response>", "</response>")),
        "ernie45",
        "ernie45",
        ["<tool_call>", "</tool_call>", "<response>", "</response>", "<0x0A>"],
    ),
    "hunyuan": (FORMS["hunyuan"], "hunyuan_a13b", "hunyuan_a13b", []),
    "deepseek_v31": (FORMS["deepseek"], "deepseek_v31", "deepseek_r1", [
        "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
    ]),
    "deepseek_r1": (ReplyForm(calls=DeepSeekCalls(is_fenced=True)), "deepseek_v3", "deepseek_r1", [
        "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>",
    ]),
    "dsml": (FORMS["dsml"], "deepseek_v32", "deepseek_r1", ["｜DSML｜"]),
    "dsml_v4": (ReplyForm(calls=DsmlCalls("tool_calls")), "deepseek_v4", "deepseek_v4", ["｜DSML｜"]),
    "xml": (FORMS["xml"], "qwen3_coder", "deepseek_r1", ["<tool_call>", "</tool_call>"]),
    "hy3": (FORMS["hy3"], "hy_v3", "hy_v3", [
        f"<{end}{name}:o>" for name in ("tool_calls", "tool_call", "arg_key", "arg_value", "think") for end in ("", "/")
    ] + ["<tool_sep:o>"]),
    "mistral": (FORMS["mistral"], "mistral", "mistral", ["[THINK]", "[/THINK]", "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"]),
    "llama": (FORMS["llama"], "llama3_json", None, ["<|python_tag|>"]),
}  # fmt: skip

FENCED = "t</think>\n\nok<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>%s\n```json\n%s\n```<｜tool▁call▁end｜>"
RICH = {"city": "\n {\"x\"} </tool_call\\> 서울 🙂", "tags": ["a", "b"], "at": {"deep": [{"er": None}, 1.5e3]}}  # fmt: skip


def hermes(*calls):
    return "\n".join(
        f"<tool_call>\n{json.dumps({'name': name, 'arguments': given}, ensure_ascii=False)}\n</tool_call>"
        for name, given in calls
    )


CASES = {
    **{name: (name, TEXTS[name]) for name in ("hunyuan", "xml", "dsml", "hy3")},
    "hermes": ("hermes", TEXTS["hermes"].replace('"now"', '"now", "arguments": {}')),
    "mistral": ("mistral", "[THINK]" + TEXTS["mistral"].replace("[CALL_ID]a", "")),
    "no arguments": ("hermes", TEXTS["hermes"]),
    "ids": ("mistral", "ok[TOOL_CALLS]now[CALL_ID]a[ARGS]{}"),
    "llama": ("llama", TEXTS["llama"].removeprefix("t</think>")),
    "mimo": ("mimo", re.sub(r">\n(서울|2)\n<", r">\1<", TEXTS["xml"])),
    "ernie": ("ernie", f"t\n</think>\n\n\n{hermes(('weather', {'city': '서울', 'days': 2}), ('now', {}))}\n"),
    "ernie answers": ("ernie", "t\n</think>\n\n<response>\nok\n</response>\n"),
    "deepseek_r1": ("deepseek_r1", FENCED % ("weather", '{"city": "서울", "days": 2}') + "<｜tool▁calls▁end｜>"),
    "deepseek_v31": ("deepseek_v31", TEXTS["deepseek"].partition("\n")[0] + "<｜tool▁calls▁end｜>"),
    "dsml_v4": ("dsml_v4", TEXTS["dsml"].replace("function_calls", "tool_calls")),
    "hermes rich": ("hermes", "t</think>" + hermes(("weather", RICH), ("weather", RICH))),
    "ernie rich": ("ernie", "t</think>\n\n" + hermes(("weather", RICH))),
    "mistral rich": ("mistral", f"[THINK]t[/THINK]ok[TOOL_CALLS]weather[ARGS]{json.dumps(RICH)}"),
    "llama rich": ("llama", json.dumps({"name": "weather", "parameters": RICH})),
    "r1 rich": ("deepseek_r1", FENCED % ("weather", json.dumps(RICH, ensure_ascii=False)) + "<｜tool▁calls▁end｜>"),
    "hunyuan one": ("hunyuan", f"<think>\nt\n</think>\n<answer>\nok\n<tool_calls>[{CALL}]</tool_calls>\n</answer>"),
    "hunyuan answers": ("hunyuan", "<think>\nt\n</think>\n<answer>\nok\n</answer>"),
    "no call": ("hermes", "t</think>\n\nok, <tool is no call"),
    "no call, xml": ("xml", "t</think>\n\nok <function without a call"),
    "cut in the thought": ("hermes", "I was cut he"),
    "call in a thought": ("hermes", f"a {hermes(('now', {}))} b</think>ok"),
    "lines in a value": ("xml", "t</think><tool_call>\n<function=weather>\n<parameter=city>\n a\n  b <c> & \"d\"\n</parameter>\n"
                                "<parameter=tags>\n[\"x\", \"y\"]\n</parameter>\n</function>\n</tool_call>"),
    "text as it is, dsml": ("dsml", 't</think><｜DSML｜function_calls>\n<｜DSML｜invoke name="weather">\n<｜DSML｜parameter name="city" '
                            'string="true">2\n"x" <b></｜DSML｜parameter>\n<｜DSML｜parameter name="at" string="false">{"a": [1]}'
                            "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>"),
}  # fmt: skip
# vLLM's calls, and why they are not ours
DIFFERENT: dict[str, tuple[list[object], str]] = {
    "no arguments": ([], "one call without arguments has it take the whole reply for text"),
    "ids": ([["now[CALL_ID]a", {}]], "an id becomes part of the name"),
}

SPEAKERS = {"hunyuan": "助手："}  # it leaves in what stands before an answer to say whose it is


def ours(case):
    name, text = CASES[case]
    reply = gathered(FAMILIES[name][0], text, inside=name not in ("hunyuan", "llama", "mistral"))
    calls = [[called, given] for called, given, _ in arguments(reply)]
    return {"thought": reply.thought.strip(), "content": reply.content.strip(), "calls": calls}


@pytest.fixture(scope="module")
def theirs():
    asked = []
    for name, text in CASES.values():
        _, tools, thoughts, special = FAMILIES[name]
        asked.append(
            {
                "tools": tools,
                "thoughts": thoughts,
                "special": THINK + special,
                "text": text,
                "functions": FUNCTIONS,
            }
        )
    done = subprocess.run(
        [PYTHON, SCRIPT], input=json.dumps(asked), capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return dict(zip(CASES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.timeout(450)
@pytest.mark.parametrize("case", CASES)
def test_both_read_the_same(case, theirs):
    read = {name: value.strip() if isinstance(value, str) else value for name, value in theirs[case].items()}
    if case in DIFFERENT:
        assert read["calls"] == DIFFERENT[case][0] != ours(case)["calls"], DIFFERENT[case][1]
        return
    if case in SPEAKERS:
        assert read["content"].startswith(SPEAKERS[case])
        read["content"] = read["content"].removeprefix(SPEAKERS[case])
    assert read == ours(case)
