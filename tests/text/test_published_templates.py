"""The chat templates of the families that clearseek runs, rendered as transformers renders them."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from clearseek.config.errors import InputError
from clearseek.text.chat import ChatTemplate
from clearseek.text.tokenizer import BOS, EOS, PAD, Tokenizer
from tests.text.published import CONVERSATIONS, SWITCHES, TEMPLATES, TOOLS, needs_published

transformers = pytest.importorskip("transformers")

OF_OUR_FAMILIES = ("deepseek", "llama", "mistral", "qwen", "mimo", "hy3", "gpt-oss", "qwq")
OURS = [path for path in TEMPLATES if any(name in path.name.lower() for name in OF_OUR_FAMILIES)]
FEW = ("two turns", "a thought apart, answered", "tools and thoughts", "two calls", "system and parts")


@pytest.fixture(scope="module")
def theirs(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(directory)
    return transformers.AutoTokenizer.from_pretrained(directory)


def opened(path: Path) -> ChatTemplate:
    """A published template with the tokens of our own vocabulary."""
    return ChatTemplate(path.read_text(encoding="utf-8"), BOS, EOS, special_tokens={"pad_token": PAD})


def rendered_by(theirs: Any, ours: ChatTemplate, conversation: str, **options: Any) -> str | None:
    """What transformers makes of it; None: it refuses, a template's own refusal may be any error there."""
    try:
        return str(
            theirs.apply_chat_template(
                CONVERSATIONS[conversation], chat_template=ours.source, tokenize=False, **options
            )
        )
    except Exception:  # noqa: BLE001
        return None


def compare(
    theirs: Any, ours: ChatTemplate, conversation: str, tools: Any, switches: dict[str, Any], prompt: bool
) -> bool:
    """Compare one rendering; whether there was one, or both refused.

    What a template doesn't read is refused by ours and makes no difference to theirs; the rest is compared without it.
    """
    messages, thinking = (
        CONVERSATIONS[conversation],
        switches.get("thinking"),
    )  # ours passes both names of that switch
    named = ({"tools": tools} if tools else {}) | switches
    expected = rendered_by(theirs, ours, conversation, add_generation_prompt=prompt, **named)
    others = {name: value for name, value in named.items() if not name.endswith("thinking")}
    read = {name: value for name, value in others.items() if name in ours.names_read}
    for name in others.keys() - read.keys():
        with pytest.raises(InputError, match=f"does not read '{name}'"):
            ours.render(messages, prompt, thinking, **{name: named[name]})
        fewer = {other: value for other, value in named.items() if other != name}
        assert rendered_by(theirs, ours, conversation, add_generation_prompt=prompt, **fewer) == expected
    if expected is None:
        with pytest.raises(InputError):
            ours.render(messages, prompt, thinking, **read)
        return False
    assert ours.render(messages, prompt, thinking, **read) == expected
    return True


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_templates_of_our_families_render_alike(theirs: Any, path: Path) -> None:
    cases = itertools.product(FEW, (None, TOOLS), SWITCHES[:3], (True, False))
    ours = opened(path)
    rendered = [compare(theirs, ours, *case) for case in cases]
    # that one asks for variables of its own, so both refuse
    assert any(rendered) or path.stem == "fireworks-ai-llama-3-firefunction-v2"


def test_there_are_templates_to_compare() -> None:
    needs_published()
    assert len(OURS) >= 18


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_conversations_become_the_same_tokens(tokenizer: Tokenizer, theirs: Any, path: Path) -> None:
    chat = opened(path)
    ours = Tokenizer(tokenizer._backend, chat, tokenizer._config)
    for name in ("system and question", "two turns"):
        try:
            expected = theirs.apply_chat_template(
                CONVERSATIONS[name],
                chat_template=chat.source,
                tools=TOOLS,
                add_generation_prompt=True,
                return_dict=False,
            )
        except Exception:  # noqa: BLE001  (refusals are compared above)
            continue
        read = {"tools": TOOLS} if "tools" in chat.names_read else {}
        assert ours.encode_chat(CONVERSATIONS[name], thinking=None, **read) == expected
