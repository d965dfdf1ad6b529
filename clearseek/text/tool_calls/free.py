"""A grammar that leaves a model its answer, and holds what it calls to the tools' schemas (llguidance's Lark).

OpenAI's `strict` tools, and DeepSeek's: whether a model calls is its own choice, but a call that is begun obeys. A call
begins where the parser would see one, so text in which its marker is spelt in other tokens is none of the answer's.
"""

import json
import re

from clearseek.text.tokenizer import Tokenizer
from clearseek.text.tool_calls import harmony, llama
from clearseek.text.tool_calls.calls import Schemas
from clearseek.text.tool_calls.forced import WHITESPACE, Grammar
from clearseek.text.tool_calls.llama import LlamaCalls
from clearseek.text.tool_calls.recognise import ReplyForm

_ANY = r"(.|\n)*"
_BARE_CALL = r'[ \n\t\r]*\{[ \n\t\r]*"(name|parameters|arguments)"' + _ANY


def free_calls(
    form: ReplyForm,
    schemas: Schemas,
    tokenizer: Tokenizer,
    is_parallel: bool = True,
    answer: str | None = None,
) -> str:
    """Lark for an answer with calls of the tools in `schemas` or without; without `is_parallel` one at most.

    With `answer`, a JSON schema as text, it is either calls or what that describes. It holds after the thought.
    InputError where the model's way of writing calls is not known.
    """
    if answer is not None:
        return _CallsOrAnswer(form, tokenizer, answer).of(schemas, is_parallel)
    return _FreeGrammar(form, tokenizer).of(schemas, is_parallel)


class _FreeGrammar(Grammar):
    def __init__(self, form: ReplyForm, tokenizer: Tokenizer) -> None:
        super().__init__(form, tokenizer)
        tags = (form.answer.start, form.answer.end) if form.answer else ()
        ids = [token for tag in tags if (token := tokenizer.token_id(tag)) in tokenizer.control_ids]
        # around answers some write tags, which are none of a text's letters where they are tokens
        self._tags = f"(TALK? ({' | '.join(f'<[{token}]>' for token in ids)}))*" if ids else ""
        self._marker = (
            "" if form.calls is None or isinstance(form.calls, LlamaCalls) else form.calls.markers[0]
        )

    def of(self, schemas: Schemas, is_parallel: bool) -> str:
        """Text, and calls wherever their marker stands."""
        if self._form.calls is None:
            return self._channels(schemas)
        if isinstance(self._form.calls, LlamaCalls):
            return self._bare(schemas)
        # what stands between calls without a frame is text, too
        calls = self._calls(schemas, is_parallel and self._is_framed())
        turns = "*" if is_parallel else "?"
        begun, talk = self._begun(self._marker), self._talk(self._marker)
        return self._whole(f"({self._tags} {begun} {calls}){turns} {self._tags} {talk}")

    def _is_framed(self) -> bool:
        """Whether the marker begins all calls, and not each."""
        _, _, end, most_one = self._frame()
        return bool(end) and not most_one

    def _bare(self, schemas: Schemas) -> str:
        """Llama's, which begin the answer without a marker, or stand behind one."""
        calls = self._calls(schemas, is_parallel=False)
        begun, talk = self._begun(llama.TAG, _BARE_CALL), self._talk(llama.TAG, _BARE_CALL)
        return self._whole(f"SPACE? {calls} | {begun} {calls} | {talk}")

    def _channels(self, schemas: Schemas) -> str:
        """gpt-oss's: thoughts and words, then a call or the answer."""
        call = self._calls(schemas, is_parallel=False)
        for channel in ("analysis", "commentary"):
            text = self._free_text(channel, {}, harmony.END)
            self._rule(f"in_{channel}", f"{self._opened(channel)} {text}")
        before = f"(in_analysis | in_commentary) {self._text(harmony.START + 'assistant')}"
        return self._whole(f"({before})* ({call} | {self._opened('final')} {self._talk()})")

    def _opened(self, channel: str) -> str:
        return self._text(harmony.CHANNEL + channel + harmony.MESSAGE)

    def _analysis(self) -> str:
        return ""  # it is one of the channels

    def _begun(self, marker: str, other: str = "") -> str:
        """Text up to a marker, and the marker; no text that `other` describes."""
        but = f" & ~/{other}/" if other else ""
        first = next((place for text in self._ids if (place := marker.find(text)) >= 0), None)
        if first is None:
            self._rules.append(f"begun[suffix={self._text(marker)}]: /{_ANY}/{but}")
            return "begun"
        before = marker[:first]
        self._rules.append(f"BEGUN: /{_ANY}{_escaped(before)}/ & ~/{_ANY}{_escaped(marker)}{_ANY}/{but}")
        return f"BEGUN{'' if before else '?'} {self._text(marker[first:])}"

    def _talk(self, marker: str = "", other: str = "") -> str:
        """Text in which no call begins."""
        calls = ([_ANY + _escaped(marker) + _ANY] if marker else []) + ([other] if other else [])
        self._rules.append(f"TALK: /{_ANY}/" + "".join(f" & ~/{call}/" for call in calls))
        return "TALK?"

    def _head(self, text: str) -> str:
        return self._text(text.removeprefix(self._marker))


class _CallsOrAnswer(Grammar):
    def __init__(self, form: ReplyForm, tokenizer: Tokenizer, answer: str) -> None:
        super().__init__(form, tokenizer)
        self._answer = answer

    def of(self, schemas: Schemas, is_parallel: bool) -> str:
        """Calls alone, or JSON."""
        schema = json.loads(self._answer)
        if isinstance(schema, dict):  # else it says that anything is right, or nothing
            schema = {**WHITESPACE, **schema}
        answer = self._rule(
            "answer", f"%json {json.dumps({} if schema is True else schema, ensure_ascii=False)}"
        )
        calls = self._calls(schemas, is_parallel)
        if self._form.is_harmony:
            final = self._text(harmony.CHANNEL + "final" + harmony.MESSAGE)
            return self._whole(f"{calls} | {self._before} {final} {answer}")
        return self._whole(f"SPACE? {calls} | SPACE? {answer}")

    def _analysis(self) -> str:
        self._before = super()._analysis()
        return self._before


def _escaped(text: str) -> str:
    return re.escape(text).replace("/", r"\/")
