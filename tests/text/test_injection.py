"""A message's text can't become a special token, wherever the template puts it."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.text.tokenizer import SPECIAL_TOKENS, Tokenizer

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
