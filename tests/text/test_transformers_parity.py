"""What we write, transformers opens: the same ids and the same rendered conversations."""

from pathlib import Path
from typing import Any

import pytest

from clearseek.text.chat import ChatTemplate
from clearseek.text.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

SYSTEM = {"role": "system", "content": "간단히."}
USER = {"role": "user", "content": "12 + 5 = ?\n"}
ANSWER = {"role": "assistant", "content": "<think>12 + 5 = 17</think>17"}
CONVERSATIONS = [[USER], [SYSTEM, USER], [USER, ANSWER, USER], [USER, ANSWER], [USER, ANSWER, USER, ANSWER]]


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(directory)
    return transformers.AutoTokenizer.from_pretrained(directory)


def test_special_tokens_agree(tokenizer: Tokenizer, theirs: Any) -> None:
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (0, 1, 2)
    assert len(theirs) == tokenizer.vocab_size
    assert theirs.is_fast


@pytest.mark.parametrize(
    "text", ["", "12 + 5 = 17, 둘은 先 x\u0301 🙂\n\n don't", "a<think>b</think> <｜User｜>"]
)
def test_ids_and_texts_agree(tokenizer: Tokenizer, theirs: Any, text: str) -> None:
    assert theirs(text)["input_ids"] == tokenizer.encode(text)
    assert theirs.decode(tokenizer.encode(text)) == text
    ids = tokenizer.encode(text)
    assert theirs.decode(ids, skip_special_tokens=True) == tokenizer.decode(ids, skip_special=True)


@pytest.mark.parametrize("messages", CONVERSATIONS)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
@pytest.mark.parametrize("thinking", [True, False])
def test_conversations_agree(
    tokenizer: Tokenizer,
    theirs: Any,
    messages: list[dict[str, str]],
    add_generation_prompt: bool,
    thinking: bool,
) -> None:
    options = {"add_generation_prompt": add_generation_prompt, "thinking": thinking}
    expected = theirs.apply_chat_template(messages, tokenize=False, **options)
    assert tokenizer.chat.render(messages, **options) == expected
    ids = theirs.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
    assert tokenizer.encode_chat(messages, **options) == ids


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}\n  {% if m.role == 'user' %}\n{{ m | tojson }}\n  {% endif %}\n{% endfor %}",
        (
            "{%- for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
            "{{ m.content | tojson(indent=2) }}{% endfor %}"
        ),
        "{{ bos_token }}{{ messages | map(attribute='role') | join(',') }}{{ '<' | tojson }}{{ eos_token }}",
    ],
)
def test_foreign_templates_render_alike(theirs: Any, source: str) -> None:
    ours = ChatTemplate(source, theirs.bos_token, theirs.eos_token)
    expected = theirs.apply_chat_template([USER, ANSWER], chat_template=source, tokenize=False)
    assert ours.render([USER, ANSWER], add_generation_prompt=False) == expected


def test_what_transformers_writes_we_read(tokenizer: Tokenizer, theirs: Any, tmp_path: Path) -> None:
    theirs.save_pretrained(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.chat.source == tokenizer.chat.source
    assert again.encode_chat([SYSTEM, USER]) == tokenizer.encode_chat([SYSTEM, USER])
    assert (again.bos_id, again.eos_id, again.pad_id) == (0, 1, 2)
