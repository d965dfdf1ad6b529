"""Examples: training sees exactly the ids that generation starts from and should sample."""

import json
from pathlib import Path

import numpy as np
import pytest

from clearseek.text.documents import Conversation
from clearseek.text.examples import EncodedDocuments, encode_conversations, encode_texts
from clearseek.text.tokenizer import Tokenizer

QWEN_LIKE = """\
{%- for m in messages %}<｜User｜>{{ m.content | trim }}
{% endfor %}
{%- if add_generation_prompt %}<｜Assistant｜>
{% endif %}"""


def lone(prompt: str, thought: str = "12 + 5 = 17", answer: str = "17") -> Conversation:
    return Conversation(({"role": "user", "content": prompt},), thought, answer, "here")


def document(encoded: EncodedDocuments, index: int) -> tuple[list[int], list[int]]:
    """(prompt, completion) of one document."""
    ids = encoded.ids[encoded.offsets[index] : encoded.offsets[index + 1]].tolist()
    at = int(encoded.num_prompt_tokens[index])
    return ids[:at], ids[at:]


def test_texts_stand_between_begin_and_end(tokenizer: Tokenizer) -> None:
    encoded = encode_texts(tokenizer, ["a <think> 7", "둘은"])
    assert document(encoded, 0) == ([], [0, *tokenizer.encode_plain("a <think> 7"), 1])
    assert len(encoded) == 2
    assert encoded.pack(8).num_counted_tokens == len(encoded.ids) - 2


@pytest.mark.parametrize("prompt", ["12 + 5?", " 둘은\n", "</think><｜Assistant｜>", "a < b", "\ue000"])
def test_prompts_are_what_generation_starts_from(tokenizer: Tokenizer, prompt: str) -> None:
    encoded = encode_conversations(tokenizer, [lone("other"), lone(prompt)])
    before, after = document(encoded, 1)
    assert before == tokenizer.encode_chat([{"role": "user", "content": prompt}])
    assert after == [*tokenizer.encode("12 + 5 = 17"), 6, *tokenizer.encode("17"), 1]
    assert (encoded.ids.dtype, encoded.offsets.dtype) == (np.int32, np.int64)


def test_long_conversations_and_lone_problems_mix(tokenizer: Tokenizer) -> None:
    turns = ({"role": "system", "content": "S"}, {"role": "user", "content": "q"})
    encoded = encode_conversations(tokenizer, [lone("a"), Conversation(turns, "", "b", "there"), lone("c")])
    assert tokenizer.decode(encoded.ids).count("<｜begin▁of▁sentence｜>") == 3
    assert document(encoded, 1) == (tokenizer.encode_chat(turns), [6, *tokenizer.encode("b"), 1])


def test_a_learnt_text_parts_as_it_was_joined(tokenizer: Tokenizer) -> None:
    _, completion = document(encode_conversations(tokenizer, [lone("q", "t <think> 1", "</think> 2")]), 0)
    assert tokenizer.chat.split_completion(tokenizer.decode(completion)) == ("t <think> 1", "</think> 2")
    assert [token for token in completion if token in (5, 6)] == [6]


def test_templates_that_trim_or_open_no_thought(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(QWEN_LIKE)
    loaded = Tokenizer.load(tmp_path)
    before, after = document(encode_conversations(loaded, [lone(" q ")]), 0)
    assert loaded.decode(before) == "<｜User｜>q\n<｜Assistant｜>\n"
    assert loaded.decode(after) == "<think>12 + 5 = 17</think>17<｜end▁of▁sentence｜>"


def test_a_vocabulary_without_thought_tokens_spells_them(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = content["added_tokens"][:5]
    del content["model"]["vocab"]["<think>"], content["model"]["vocab"]["</think>"]
    path.write_text(json.dumps(content), encoding="utf-8")
    base = Tokenizer.load(tmp_path)
    before, after = document(encode_conversations(base, [lone("q")]), 0)
    assert base.decode(before) == "<｜begin▁of▁sentence｜>User: q\n\nAssistant: <think>"
    assert base.decode(after) == "12 + 5 = 17</think>17<｜end▁of▁sentence｜>"


def test_nothing_gives_nothing(tokenizer: Tokenizer) -> None:
    assert len(encode_texts(tokenizer, [])) == len(encode_conversations(tokenizer, [])) == 0
    assert encode_texts(tokenizer, []).offsets.tolist() == [0]
