"""Which way a model writes its thoughts and calls, by its chat template: it shows the model how, or writes it itself.

Nothing is guessed: a template that takes tools and shows no way known here has no `calls`, and asking for tools is an
error that says so.
"""

import re
from dataclasses import dataclass

from clearseek.text.thoughts import THINK_TAGS, Tags
from clearseek.text.tool_calls import deepseek, dsml, harmony, llama, mistral
from clearseek.text.tool_calls.form import CallForm
from clearseek.text.tool_calls.json_forms import JsonCalls
from clearseek.text.tool_calls.tagged import HunyuanTaggedCalls, QwenXmlCalls

_HUNYUAN_SUFFIX = re.compile(r"HYTK\s*=\s*'([^']*)'")
_PANGU_TURN = ("[unused9]", "[unused10]")
_ANSWER_TAGS = (Tags("<answer>", "</answer>"), Tags("<response>", "</response>"))  # Hunyuan's and ERNIE's

_HUNYUAN_SPEAKER = "助手："  # "assistant:", which its template teaches it to begin with
_HUNYUAN_CALLS = JsonCalls(Tags("<tool_calls>", "</tool_calls>"), is_list=True)


@dataclass(frozen=True)
class ReplyForm:
    """How replies are written. `answer`: tags that may stand around the answer; `is_harmony`: in channels.

    `speaker`: what may stand before the answer, to say whose it is.
    """

    thought: Tags = THINK_TAGS
    calls: CallForm | None = None
    answer: Tags | None = None
    is_harmony: bool = False
    speaker: str = ""

    @property
    def tokens(self) -> tuple[str, ...]:
        """Texts that a decoder has to keep where they are special tokens."""
        if self.is_harmony:
            return harmony.TOKENS
        return (self.thought.start, self.thought.end, *(self.calls.tokens if self.calls else ()))


def reply_form(template: str) -> ReplyForm:
    """The way that a chat template's source shows."""
    if harmony.CHANNEL in template and harmony.MESSAGE in template:
        return ReplyForm(is_harmony=True)
    calls = _calls(template)
    answer = next((tags for tags in _ANSWER_TAGS if tags.start in template and tags.end in template), None)
    if calls == _HUNYUAN_CALLS:
        # its models write them whether a template shows them or not
        return ReplyForm(_thought_tags(template), calls, _ANSWER_TAGS[0], speaker=_HUNYUAN_SPEAKER)
    return ReplyForm(_thought_tags(template), calls, answer)


def _thought_tags(template: str) -> Tags:
    if "[THINK]" in template and "[/THINK]" in template:
        return Tags("[THINK]", "[/THINK]")
    if suffix := _HUNYUAN_SUFFIX.search(template):
        return Tags(f"<think{suffix.group(1)}>", f"</think{suffix.group(1)}>")
    if all(token in template for token in _PANGU_TURN):
        return Tags("[unused16]", "[unused17]")
    return THINK_TAGS


def _calls(template: str) -> CallForm | None:
    """The special ones first: some show a more common tag, too."""
    if deepseek.BEGIN in template:
        return deepseek.DeepSeekCalls(is_fenced="```json" in template)
    if dsml.TOKEN in template:
        return dsml.DsmlCalls("tool_calls" if "tool_calls>" in template else "function_calls")
    if mistral.MARKER in template:
        return mistral.MistralCalls(mistral.ARGUMENTS not in template, mistral.ID in template)
    if all(token in template for token in _PANGU_TURN):
        return JsonCalls(Tags("[unused11]", "[unused12]"), is_list=True)
    return _tagged(template)


def _tagged(template: str) -> CallForm | None:
    suffix = _HUNYUAN_SUFFIX.search(template)
    if suffix or ("<tool_sep>" in template and "<arg_key>" in template):
        return HunyuanTaggedCalls(suffix.group(1) if suffix else "")
    if "<tool_call>" in template and "<function=" in template:
        return QwenXmlCalls()
    if "<tool_calls>" in template and "</tool_calls>" in template:
        return _HUNYUAN_CALLS
    if (
        "<tool_call>" in template
        and "</tool_call>" in template
        and '"arguments"' in template.replace("\\", "")
    ):
        return JsonCalls()
    if '"parameters": ' in template and '{"name": "' in template.replace("\\", ""):
        return llama.LlamaCalls()
    return None
