"""Chat templates: DeepSeek's format to the character, and completions parted as the format says."""

import re
from enum import StrEnum
from typing import Any

import pytest

from clearseek.config.errors import InputError
from clearseek.text.chat import DEEPSEEK_TEMPLATE, PLAIN_TEMPLATE, ChatTemplate

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
CHAT = ChatTemplate(DEEPSEEK_TEMPLATE, BOS, EOS)


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def assistant(content: str, **more: str) -> dict[str, str]:
    return {"role": "assistant", "content": content, **more}


def test_a_problem_opens_the_thought() -> None:
    assert CHAT.render_problem(" 1+1? \n") == f"{BOS}<｜User｜> 1+1? \n<｜Assistant｜><think>"
    assert CHAT.opens_thought
    assert CHAT.render([user("1")], thinking=False) == f"{BOS}<｜User｜>1<｜Assistant｜></think>"


def test_the_system_message_stands_after_the_beginning() -> None:
    system = {"role": "system", "content": "S"}
    assert CHAT.render([user("q"), system]) == f"{BOS}S<｜User｜>q<｜Assistant｜><think>"
    assert CHAT.render([system, system, user("q")]).startswith(f"{BOS}S\n\nS<｜User｜>")


@pytest.mark.parametrize("answer", ["<think>t</think>a", "t</think>a", "a"])
def test_thoughts_of_earlier_turns_are_dropped(answer: str) -> None:
    messages = [user("q"), assistant(answer, reasoning_content="r"), user("z")]
    expected = f"{BOS}<｜User｜>q<｜Assistant｜></think>a{EOS}<｜User｜>z<｜Assistant｜><think>"
    assert CHAT.render(messages) == expected


@pytest.mark.parametrize(
    "message",
    [assistant("<think>t</think>a"), assistant("t</think>a"), assistant("a", reasoning_content="t")],
)
def test_the_last_answer_keeps_its_thought(message: dict[str, str]) -> None:
    rendered = CHAT.render([user("q"), message], add_generation_prompt=False)
    assert rendered == f"{BOS}<｜User｜>q<｜Assistant｜><think>t</think>a{EOS}"


def test_a_conversation_that_is_answered_is_not_asked_on() -> None:
    messages = [user("q"), assistant("a")]
    assert CHAT.render(messages) == CHAT.render(messages, add_generation_prompt=False)


def test_an_unknown_role_and_a_broken_template_are_named() -> None:
    with pytest.raises(InputError, match='not "tool"'):
        CHAT.render([{"role": "tool", "content": "x"}])
    with pytest.raises(InputError, match="chat template"):
        CHAT.render([{"role": "user"}])
    with pytest.raises(InputError, match="chat template"):
        ChatTemplate("{% for %}", "", "").render([])
    with pytest.raises(InputError, match="chat template"):
        ChatTemplate("{{ 1 / 0 }}", "", "").render([])


@pytest.mark.parametrize(
    "attack",
    [
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ raise_exception.__globals__.values() }}",
        "{{ strftime_now.__globals__['json'] }}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_templates_stay_in_their_sandbox(attack: str) -> None:
    with pytest.raises(InputError):
        ChatTemplate(attack, "", "").render([user("x")])


def test_templates_have_what_transformers_offers() -> None:
    source = (
        "{%- for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}\n"
        "  {% if true %}\n"
        "{{ {'b': '<한>', 'a': 1} | tojson }}{{ strftime_now('%Y') | length }}\n"
        "  {% endif %}\n"
        "{{ [1] | tojson(indent=2) }}"
    )
    assert ChatTemplate(source, "", "").render([]) == '01{"b": "<한>", "a": 1}4\n[\n  1\n]'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"t</think> 42 {EOS}", ("t", "42")),
        ("t</think>42", ("t", "42")),
        ("t</think>", ("t", "")),
        ("no end", ("no end", None)),
        ("t</thin", ("t</thin", None)),
        ("", ("", None)),
        ("<think>t</think>a</think>b", ("t", "a</think>b")),
        ("</think>a", ("", "a")),
    ],
)
def test_completions_are_parted_at_the_first_end_of_thought(text: str, expected: tuple[str, Any]) -> None:
    assert CHAT.split_completion(text) == expected


def test_completions_of_a_template_that_opens_no_thought() -> None:
    chat = ChatTemplate("{{ messages[0].content }}:", "", "</s>")
    assert not chat.opens_thought
    assert chat.split_completion("42</s>") == ("", "42")
    assert chat.split_completion("\n<think>t</think>42") == ("t", "42")
    assert chat.split_completion("<think>t") == ("t", None)


def test_plain_template_speaks_as_r1_zero() -> None:
    chat = ChatTemplate(PLAIN_TEMPLATE, "<s>", "</s>")
    rendered = chat.render([{"role": "system", "content": "S"}, user("q"), assistant("a"), user("z")])
    assert rendered == "<s>S\n\nUser: q\n\nAssistant: a</s>\n\nUser: z\n\nAssistant: <think>"


def test_templates_see_plain_data_under_the_names_they_read() -> None:
    class Role(StrEnum):
        USER = "user"

    source = "{% for m in messages %}{{ m.role }}{{ m.thinking }}{{ m.reasoning_content }}{{ m | length }};{% endfor %}"
    messages = [{"role": Role.USER, "content": None}, {"role": "a", "reasoning": "r", "parts": ({"x": 1},)}]
    assert ChatTemplate(source, None, "").render(messages) == "user1;arr5;"
    with pytest.raises(
        InputError, match=r"messages\[0\]\.image: a chat template takes JSON values, not object"
    ):
        ChatTemplate(source, None, "").render([{"role": "user", "image": object()}])
    with pytest.raises(InputError, match=r"messages\[0\] must be a table"):
        ChatTemplate(source, None, "").render(["user"])  # type: ignore[list-item]


def test_what_the_template_is_asked_for_reaches_it() -> None:
    source = (
        "{{ tools[0].name }}{{ documents[0].text }}{{ effort }}{{ thinking is defined }}{{ enable_thinking }}"
    )
    chat = ChatTemplate(source, None, "")
    given = {"tools": [{"name": "t"}], "documents": [{"text": "d"}], "effort": "high"}
    assert chat.render([user("q")], **given) == "tdhighTrueTrue"
    assert chat.render([user("q")], thinking=None, **given) == "tdhighFalse"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{% for m in messages %}<{{ m.role }}>{{ m.content }}</end>{% endfor %}",
            "<user>q</end><assistant>a b ",
        ),
        ("{% for m in messages %}<{{ m.content | trim }}></end>{% endfor %}", "<q></end><a b"),
    ],
)
def test_a_last_message_is_left_open(source: str, expected: str) -> None:
    chat = ChatTemplate(source, None, "")
    options: dict[str, Any] = {"add_generation_prompt": False, "continue_final_message": True}
    assert chat.render([user("q"), assistant("a b ")], **options) == expected
    parts = {"role": "assistant", "content": [{"type": "text", "text": "a"}]}
    listed = ChatTemplate("{{ messages[-1].content[0].text }}.", None, "")
    assert listed.render([parts], **options) == "a"
    with pytest.raises(InputError, match="no text to continue"):
        chat.render([{"role": "assistant"}], **options)
    with pytest.raises(InputError, match="does not write the last message"):
        ChatTemplate("nothing", None, "").render([user("q")], **options)
    with pytest.raises(InputError, match="one or the other"):
        chat.render([user("q")], continue_final_message=True)


def test_a_template_may_mark_what_was_said() -> None:
    source = "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}.{% endfor %}"
    assert ChatTemplate(source, None, "").render([user("q"), assistant("a")]) == "q.a."


def test_what_a_template_reads_is_known() -> None:
    assert {"messages", "add_generation_prompt", "thinking"} <= CHAT.names_read
    assert "tools" not in CHAT.names_read
    assert "tools" in ChatTemplate("", None, "", named={"tool_use": "{{ tools }}"}).names_read
    with pytest.raises(InputError, match="chat template: "):
        _ = ChatTemplate("{% for %}", None, "").names_read


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"reasoning_efort": "high"}, "'reasoning_efort'; did you mean 'reasoning_effort'?"),
        ({"reasoning_effort": "high", "date": None}, "'date'; known: enable_thinking, reasoning_effort"),
        ({"tools": [{"name": "add"}]}, "'tools'; known: enable_thinking, reasoning_effort"),
        ({"documents": [{"text": "x"}]}, "'documents'; known: enable_thinking, reasoning_effort"),
    ],
)
def test_what_no_template_reads_is_refused(given: dict[str, Any], named: str) -> None:
    """Law 8: a template would ignore it in silence."""
    source = (
        "{% set level = reasoning_effort %}{{ bos_token ~ messages[0].content ~ level ~ enable_thinking }}"
    )
    chat = ChatTemplate(source, "<s>", "", "place")
    assert chat.render([user("q")], reasoning_effort="high", tools=[], thinking=False) == "<s>qhighFalse"
    with pytest.raises(InputError, match=re.escape(f"place: it does not read {named}")):
        chat.render([user("q")], **given)


def test_values_that_nest_without_end_are_refused() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InputError, match="nests values too deep"):
        CHAT.render([{"role": "user", "content": "q", "more": nested}])
