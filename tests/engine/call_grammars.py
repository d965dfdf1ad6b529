"""Grammars of tool calls walked at random and asked about texts; one call as every family writes it."""

# ruff: noqa: E501  (replies stand here as models write them)

import numpy as np

from clearseek.engine.constraint import lark
from clearseek.engine.grammar import Grammars
from clearseek.text.tokenizer import Tokenizer
from tests.text.tool_calls.replies import FORMS

WRITING = sorted(set(FORMS) - {"none"})


def tokenizer_with(texts: tuple[str, ...]) -> Tokenizer:
    """One that has these texts as special tokens."""
    import tokenizers

    plain = Tokenizer.train(["name arguments parameters city days weather function true false"] * 9, 500)
    backend = tokenizers.Tokenizer.from_str(plain.to_json())
    backend.add_special_tokens([tokenizers.AddedToken(text, special=True) for text in texts])
    return Tokenizer(backend, plain.chat, plain._config)


def walk(tokenizer: Tokenizer, source: str, seed: int) -> str | None:
    """A text that the grammar lets through, drawn at random; None: it did not end."""
    grammar = Grammars(tokenizer, tokenizer.stop_ids).start(lark(source))
    random, said = np.random.default_rng(seed), []
    for _ in range(600):
        allowed = grammar.allowed()
        assert allowed is not None, grammar.error
        ids = np.flatnonzero(allowed)
        token = int(random.choice(ids))
        if token in tokenizer.stop_ids or tokenizer.eos_id in ids:
            return tokenizer.decode(said)
        said.append(token)
        grammar.note(token)
    return None


def accepts(tokenizer: Tokenizer, source: str, text: str) -> bool:
    grammar = Grammars(tokenizer, tokenizer.stop_ids).start(lark(source))
    for token in tokenizer.encode(text):
        allowed = grammar.allowed()
        if allowed is None or not allowed[token]:
            return False
        grammar.note(token)
    allowed = grammar.allowed()
    return allowed is not None and bool(allowed[tokenizer.eos_id])


SAY = {"say": {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}


def say(name: str, said: str = '{"text": "a <b> c"}', tagged: str = "a <b> c") -> str:
    """One call of `say` as a family writes it."""
    texts = {
        "hermes": f'<tool_call>\n{{"name": "say", "arguments": {said}}}\n</tool_call>',
        "hunyuan": f'<tool_calls>[{{"name": "say", "arguments": {said}}}]</tool_calls>',
        "deepseek": f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>say<｜tool▁sep｜>{said}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "dsml": f'<｜DSML｜function_calls>\n<｜DSML｜invoke name="say">\n<｜DSML｜parameter name="text" string="true">{tagged}'
        "</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        "xml": f"<tool_call>\n<function=say>\n<parameter=text>\n{tagged}\n</parameter>\n</function>\n</tool_call>",
        "hy3": f"<tool_calls:o>\n<tool_call:o>say<tool_sep:o>\n<arg_key:o>text</arg_key:o>\n<arg_value:o>{tagged}</arg_value:o>\n"
        "</tool_call:o>\n</tool_calls:o>",
        "mistral": f"[TOOL_CALLS]say[ARGS]{said}",
        "llama": f'{{"name": "say", "parameters": {said}}}',
        "harmony": f"<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.say "
        f"<|constrain|>json<|message|>{said}",
        "pangu": f'[unused11][{{"name": "say", "arguments": {said}}}][unused12]',
        "mistral_list": f'[TOOL_CALLS][{{"name": "say", "arguments": {said}}}]',
        "r1": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>say\n```json\n"
        f"{said}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    }  # fmt: skip
    texts |= {"ernie": texts["hermes"], "dsml_v4": texts["dsml"].replace("function_calls", "tool_calls")}
    return texts[name]
