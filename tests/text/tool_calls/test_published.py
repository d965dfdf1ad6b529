"""Published templates: each shows its way of writing calls, and what it writes is read back as it was."""

import json
from pathlib import Path

import pytest

from clearseek.config.errors import InputError
from clearseek.text.chat import ChatTemplate
from clearseek.text.thoughts import Tags
from clearseek.text.tokenizer import BOS, EOS
from clearseek.text.tool_calls.deepseek import DeepSeekCalls
from clearseek.text.tool_calls.dsml import DsmlCalls
from clearseek.text.tool_calls.form import CallForm
from clearseek.text.tool_calls.history import fit_calls
from clearseek.text.tool_calls.json_forms import JsonCalls
from clearseek.text.tool_calls.llama import LlamaCalls
from clearseek.text.tool_calls.mistral import MistralCalls
from clearseek.text.tool_calls.parser import schemas_of
from clearseek.text.tool_calls.recognise import reply_form
from clearseek.text.tool_calls.tagged import HunyuanTaggedCalls, QwenXmlCalls
from tests.text.published import ARGUMENTS, ASK, PLACE, TOOLS, called, needs_published
from tests.text.tool_calls.replies import arguments, gathered

FORMS: dict[str, CallForm | None] = {
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B": DeepSeekCalls(is_fenced=True),
    "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B": DeepSeekCalls(is_fenced=True),
    "llama-cpp-deepseek-r1": DeepSeekCalls(is_fenced=True),
    "deepseek-ai-DeepSeek-V3.1": DeepSeekCalls(is_fenced=False),
    "deepseek-ai-DeepSeek-V3.2": DsmlCalls("function_calls"),
    "deepseek-ai-DeepSeek-V4": DsmlCalls("tool_calls"),
    "deepseek-ai-DeepSeek-V4-Flash-0731": DsmlCalls("tool_calls"),
    "Qwen-Qwen2.5-7B-Instruct": JsonCalls(),
    "Qwen-Qwen3-0.6B": JsonCalls(),
    "Qwen-QwQ-32B": JsonCalls(),
    "MiMo-VL": JsonCalls(),
    "NousResearch-Hermes-3-Llama-3.1-8B-tool_use": JsonCalls(),
    "Qwen3-Coder": QwenXmlCalls(),
    "Qwen3.5-4B": QwenXmlCalls(),
    "tencent-Hy3": HunyuanTaggedCalls(":opensource"),
    "mistralai-Mistral-Nemo-Instruct-2407": MistralCalls(is_list=True),
    "Mistral-Small-3.2-24B-Instruct-2506": MistralCalls(is_list=False, tells_id=True),
    "mistralai-Ministral-3-14B-Reasoning-2512": MistralCalls(is_list=False),
    "unsloth-mistral-Devstral-Small-2507": MistralCalls(is_list=False),
    "meta-llama-Llama-3.1-8B-Instruct": LlamaCalls(),
    "meta-llama-Llama-3.2-3B-Instruct": LlamaCalls(),
    "meta-llama-Llama-3.3-70B-Instruct": LlamaCalls(),
    "openai-gpt-oss-120b": None,
    "google-gemma-2-2b-it": None,
    "microsoft-Phi-3.5-mini-instruct": None,
}  # fmt: skip
ONE_ONLY = ("meta-llama", "openai-gpt-oss")  # calls in one turn


def source(name: str) -> str:
    path: Path = PLACE / "templates" / f"{name}.jinja"
    needs_published(path)
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FORMS)
def test_a_template_shows_its_form(name: str) -> None:
    form = reply_form(source(name))
    assert form.calls == FORMS[name]
    assert form.is_harmony == name.startswith("openai")
    tags = {"tencent-Hy3": Tags("<think:opensource>", "</think:opensource>")}
    tags["mistralai-Ministral-3-14B-Reasoning-2512"] = Tags("[THINK]", "[/THINK]")
    assert form.thought == tags.get(name, Tags("<think>", "</think>"))


WRITING = [name for name in FORMS if FORMS[name] or name.startswith("openai")]


@pytest.mark.parametrize("name", WRITING)
def test_calls_that_a_template_writes_are_read_back(name: str) -> None:
    chat = ChatTemplate(source(name), BOS, EOS, special_tokens={"pad_token": "<pad>"})
    turn = called(ARGUMENTS)
    if not name.startswith(ONE_ONLY):
        second = {"id": "call00002", "type": "function", "function": {"name": "now", "arguments": {}}}
        turn["tool_calls"] = [*turn["tool_calls"], second]
    options = {"add_generation_prompt": False, "tools": TOOLS}
    if "tools" not in chat.names_read or "deepseek-r1" in name:
        del options["tools"]  # some are told of them in a system message; that one can't write these
    try:
        asked = chat.render([ASK], **{**options, "add_generation_prompt": True}, thinking=False)
        whole = chat.render(fit_calls([ASK, turn], chat.source), **options, thinking=False)
    except InputError as error:
        pytest.fail(f"{name}: {error}")
    said = whole[_shared(asked, whole) :]
    for end in (EOS, "<|im_end|>", "<|eot_id|>", "<｜hy_eos:opensource｜>", "<|call|>"):
        said = said.rstrip().removesuffix(end)
    reply = gathered(
        chat.reply_form, said.removeprefix("<｜Assistant｜>"), inside=False, schemas=schemas_of(TOOLS)
    )
    expected = [("get_weather", ARGUMENTS, True), ("now", {}, True)][: len(turn["tool_calls"])]
    assert arguments(reply) == expected, said
    assert reply.malformed == ""
    assert json.loads(reply.calls[0].arguments) == ARGUMENTS


def _shared(asked: str, whole: str) -> int:
    """Where they part; a tag that they part within belongs to what comes after."""
    pairs = enumerate(zip(asked, whole, strict=False))
    end = next((i for i, (a, b) in pairs if a != b), min(len(asked), len(whole)))
    tag = whole.rfind("<", 0, end)
    return tag if tag > whole.rfind(">", 0, end) else end


def test_a_text_beside_calls_is_not_lost_in_r1s_template() -> None:
    chat = ChatTemplate(source("deepseek-ai-DeepSeek-R1-Distill-Llama-8B"), BOS, EOS)
    turns = [ASK, {**called(ARGUMENTS), "content": "Let me look."}, {"role": "tool", "content": "12°"}]
    with pytest.raises(InputError):
        chat.render([ASK, called(ARGUMENTS, content=None)])  # it can't join a mapping to a text
    prompt = chat.render(fit_calls(turns, chat.source))
    said = prompt.index("Let me look."), prompt.index('{"city": "서울", "days": 2'), prompt.index("12°")
    assert said == tuple(sorted(said))
