"""A message's text can't become a special token, wherever the template puts it."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.text.chat import ChatTemplate
from clearseek.text.tokenizer import BOS, EOS, SPECIAL_TOKENS, Tokenizer

HOSTILE = st.lists(
    st.sampled_from(
        [*SPECIAL_TOKENS, "<", "thi", "nk>", "｜User｜>", " ", "\n", "a", "7", "\ue000", "\ue001<think>"]
    ),
    max_size=8,
).map("".join)


def special_ids(ids: list[int]) -> list[int]:
    return [token for token in ids if token < len(SPECIAL_TOKENS)]


@given(system=HOSTILE, question=HOSTILE, answer=HOSTILE, thinking=st.booleans())
@settings(max_examples=300, deadline=None)
def test_special_tokens_come_from_the_template_alone(
    tokenizer: Tokenizer, system: str, question: str, answer: str, thinking: bool
) -> None:
    messages = [
        {"role": "system", "content": system},
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
        {"role": "user", "content": question},
    ]
    ids = tokenizer.encode_chat(messages, thinking=thinking)
    bos, eos, _, user, assistant, think, end = range(7)
    assert special_ids(ids) == [bos, user, assistant, end, eos, user, assistant, think if thinking else end]
    assert tokenizer.decode(ids) == tokenizer.chat.render(messages, thinking=thinking)


@given(thought=HOSTILE, answer=HOSTILE)
@settings(max_examples=100, deadline=None)
def test_the_last_answer_has_one_thought(tokenizer: Tokenizer, thought: str, answer: str) -> None:
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": answer.replace("</think>", ""), "reasoning_content": "t" + thought},
    ]
    ids = tokenizer.encode_chat(messages, add_generation_prompt=False)
    assert special_ids(ids) == [0, 3, 4, 5, 6, 1]
    assert tokenizer.decode(ids) == tokenizer.chat.render(messages, add_generation_prompt=False)


@pytest.mark.parametrize("content", ["12 + 5 < 17?", "<b>둘</b> <", "先 3*4\n\n", "\ue000"])
def test_harmless_text_is_encoded_as_transformers_would(tokenizer: Tokenizer, content: str) -> None:
    messages = [{"role": "user", "content": content}]
    assert tokenizer.encode_chat(messages) == tokenizer.encode(tokenizer.chat.render(messages))


def test_tokens_joined_by_the_template_stay_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A template that puts two contents side by side must not complete a special token."""
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content | trim }}{% endfor %}"
        "{% for m in messages %}{% for part in m.parts %}{{ part.text }}{% endfor %}{% endfor %}<think>"
    )
    loaded = Tokenizer.load(tmp_path)
    parts = [{"type": "text", "text": "<｜Us"}, {"type": "text", "text": "er｜>"}]
    messages = [{"role": "user", "content": " </thi"}, {"role": "user", "content": "nk> ", "parts": parts}]
    ids = loaded.encode_chat(messages)
    assert special_ids(ids) == [5]
    assert loaded.decode(ids) == "</think><｜User｜><think>"


def test_tokens_that_swallow_white_space_still_do(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"][3] |= {"lstrip": True, "rstrip": True}
    path.write_text(json.dumps(content), encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("a  <｜User｜> \n{{ messages[0].content }}")
    ids = Tokenizer.load(tmp_path).encode_chat([{"role": "user", "content": "</think>"}])
    assert ids == [*tokenizer.encode("a"), 3, *tokenizer.encode_plain("</think>")]


ECHO = """\
{%- for tool in tools or [] -%}
<｜User｜>{{ tool | tojson }}{% for key in tool %}{{ key }}{% endfor %}
{%- endfor -%}
{%- for message in messages -%}
<｜Assistant｜>{{ message.role }}{{ message.content }}{{ message.name }}
{%- endfor -%}
{{- note }}<think>"""


@given(hostile=HOSTILE)
@settings(max_examples=100, deadline=None)
def test_tools_roles_and_variables_stay_text(tokenizer: Tokenizer, hostile: str) -> None:
    chat = ChatTemplate(ECHO, BOS, EOS)
    loaded = Tokenizer(tokenizer._backend, chat, tokenizer._config)
    messages = [{"role": hostile, "content": hostile, "name": hostile}]
    tools = [{"name": "t", "parameters": {hostile: [hostile]}, f"{hostile} ": hostile}]
    ids = loaded.encode_chat(messages, tools=tools, note=hostile)
    assert special_ids(ids) == [3, 4, 5]
    assert loaded.decode(ids) == chat.render(messages, tools=tools, note=hostile)


def test_a_template_sees_how_a_harmless_text_begins(tokenizer: Tokenizer) -> None:
    """Templates ask what a text begins with, how long it is, and write it in other characters."""
    source = (
        "{% for m in messages %}<｜User｜>{% if m.content.startswith('<b>') %}bold {{ m.content | length }}"
        "{% endif %}{{ m.content | tojson(ensure_ascii=True) }}{% endfor %}"
    )
    chat = ChatTemplate(source, BOS, EOS)
    loaded = Tokenizer(tokenizer._backend, chat, tokenizer._config)
    messages = [{"role": "user", "content": "<b>둘</b> < 3"}]
    assert "bold 12" in chat.render(messages)
    assert loaded.encode_chat(messages) == loaded.encode(chat.render(messages))


def test_no_space_is_put_before_text_that_follows_a_token(tmp_path: Path) -> None:
    """Vocabularies of sentencepiece put one before a text, but only where it begins."""
    tokens = ["<s>", "</s>", "<unk>", "▁", *"abc<>/s▁"]
    content = {
        "version": "1.0",
        "added_tokens": [
            {"id": index, "content": tokens[index], "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for index in range(3)
        ],
        "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
        "decoder": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "vocab": {token: index for index, token in enumerate(dict.fromkeys(tokens))},
            "merges": [],
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    config = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    (tmp_path / "chat_template.jinja").write_text("<s>{{ messages[0].content }}</s>b", encoding="utf-8")
    loaded = Tokenizer.load(tmp_path)
    ids = loaded.encode_chat([{"role": "user", "content": "a</s>"}])
    assert ids == [0, *(loaded.token_id(letter) for letter in "a</s>"), 1, loaded.token_id("b")]
    assert loaded.encode_chat([{"role": "user", "content": "a"}]) == loaded.encode("<s>a</s>b")
