"""What we write, transformers opens: the same ids and the same rendered conversations."""

import json
from pathlib import Path
from typing import Any

import pytest

from clearseek.text.chat import ChatTemplate
from clearseek.text.tokenizer import BOS, EOS, PAD, Tokenizer
from clearseek.text.tokenizer import USER as USER_TAG

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


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@pytest.mark.parametrize(
    ("config", "token_map"),
    [
        ({"bos_token": {"__type": "AddedToken", "content": BOS, "special": True}, "eos_token": EOS}, {}),
        ({"eos_token": PAD}, {"bos_token": BOS, "eos_token": {"content": EOS, "lstrip": False}}),
        (
            {"eos_token": EOS, "added_tokens_decoder": {"1": {"content": EOS, "special": True}}},
            {"bos_token": BOS},
        ),
        ({"eos_token": EOS, "image_token": PAD, "extra_special_tokens": {"audio_token": USER_TAG}}, {}),
    ],
)
def test_special_tokens_have_the_names_that_transformers_gives_them(
    tokenizer: Tokenizer, tmp_path: Path, config: dict[str, Any], token_map: dict[str, Any]
) -> None:
    tokenizer.save(tmp_path)
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", **config})
    if token_map:
        write_json(tmp_path / "special_tokens_map.json", token_map)
    named = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ image_token }}|{{ audio_token }}"
    (tmp_path / "chat_template.jinja").write_text(named, encoding="utf-8")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    ours = Tokenizer.load(tmp_path)
    assert ours.chat.render([USER]) == theirs.apply_chat_template([USER], tokenize=False)
    assert (ours.bos_id, ours.eos_id) == (theirs.bos_token_id, theirs.eos_token_id)
    text = f"a{BOS}<think>{USER_TAG}b{PAD}"
    assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("where", ["config", "files"])
@pytest.mark.parametrize("tools", [None, [], [{"name": "t"}]])
def test_named_templates_are_chosen_alike(
    tokenizer: Tokenizer, tmp_path: Path, where: str, tools: list[dict[str, Any]] | None
) -> None:
    tokenizer.save(tmp_path)
    if where == "config":
        (tmp_path / "chat_template.jinja").unlink()
        listed = [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T{{ tools }}"}]
        content = json.loads((tmp_path / "tokenizer_config.json").read_text(encoding="utf-8"))
        write_json(tmp_path / "tokenizer_config.json", {**content, "chat_template": listed})
    else:
        (tmp_path / "additional_chat_templates").mkdir()
        (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("T{{ tools }}")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    options: dict[str, Any] = {"add_generation_prompt": True, "tools": tools, "thinking": True}
    expected = theirs.apply_chat_template([USER], tokenize=False, **options)
    assert Tokenizer.load(tmp_path).chat.render([USER], **options) == expected


@pytest.mark.parametrize("content", ["17 이다. ", "<think>t</think>17", [{"type": "text", "text": "a "}]])
@pytest.mark.parametrize("tail", ["", " | trim"])
def test_a_continued_message_ends_alike(theirs: Any, content: Any, tail: str) -> None:
    written = f"(m.content if m.content is string else m.content[0].text){tail}"
    source = f"{{% for m in messages %}}<{{{{ m.role }}}}>{{{{ {written} }}}}</end>{{% endfor %}}"
    messages = [USER, {"role": "assistant", "content": content}]
    options: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
    expected = theirs.apply_chat_template(messages, chat_template=source, tokenize=False, **options)
    assert ChatTemplate(source, BOS, EOS).render(messages, **options) == expected
