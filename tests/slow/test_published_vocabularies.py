"""Published vocabularies: the ids that their publishers' tokenizers give, and transformers', chats included."""

from pathlib import Path
from typing import Any

import pytest

from clearseek.text.tokenizer import Tokenizer
from tests.text.published import CONVERSATIONS, PLACE, TOOLS, needs_published
from tests.text.vocabularies import FAMILIES, path_of, texts_and_ids, write_directory

pytest.importorskip("gguf")

TEMPLATES = {
    "llama-bpe": "meta-llama-Llama-3.1-8B-Instruct",
    "qwen2": "Qwen-Qwen2.5-7B-Instruct",
    "deepseek-llm": "deepseek-ai-DeepSeek-V3.1",
    "deepseek-coder": "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
}
TEXTS = (
    "12 + 5 = 17, 둘은 先 x\u0301 🙂👩‍👩‍👧‍👦\n\n don't  DON'T\t\r\n",
    "def f(x: int) -> list[str]:\n    return [f'{x:>10}'] * 3  # 주석 注释\n",
    "한국어 문장은 조사와 어미가 붙는다. 中文没有空格，标点是全角的。１２３４ ٣٤ ½",
    "<|im_start|>user\n<｜User｜></think><|eot_id|> [INST]",
)
CHATS = ("system and question", "two turns", "a tool's result")


@pytest.fixture(scope="module", params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    needs_published(path_of(request.param))
    return str(request.param)


@pytest.fixture(scope="module")
def directory(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp(family)
    template = (PLACE / "templates" / f"{TEMPLATES[family]}.jinja").read_text(encoding="utf-8")
    write_directory(family, made, template)
    return made


@pytest.fixture(scope="module")
def ours(directory: Path) -> Tokenizer:
    return Tokenizer.load(directory)


@pytest.fixture(scope="module")
def theirs(directory: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    return transformers.PreTrainedTokenizerFast.from_pretrained(directory)


def test_texts_become_the_publishers_ids(family: str, ours: Tokenizer) -> None:
    pairs = texts_and_ids(family)
    assert len(pairs) > 40
    assert [(text, ours.encode(text)) for text, _ in pairs] == pairs


def test_texts_become_the_ids_of_transformers(ours: Tokenizer, theirs: Any) -> None:
    for text in TEXTS:
        assert ours.encode(text) == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.decode(ours.encode(text)) == theirs.decode(ours.encode(text))


def test_chats_become_the_ids_of_transformers(ours: Tokenizer, theirs: Any) -> None:
    for name in CHATS:
        expected = theirs.apply_chat_template(
            CONVERSATIONS[name], tools=TOOLS, add_generation_prompt=True, return_dict=False
        )
        read = {"tools": TOOLS} if "tools" in ours.chat.names_read else {}
        assert ours.encode_chat(CONVERSATIONS[name], thinking=None, **read) == expected


def test_text_that_spells_special_tokens_stays_text(ours: Tokenizer, theirs: Any) -> None:
    control = sorted(ours.control_ids)
    spelled = "".join(ours.decode([token]) for token in control[:40])
    harmless = [{"role": "system", "content": "s"}, {"role": "user", "content": "harmless"}]
    hostile = [{"role": "system", "content": spelled}, {"role": "user", "content": f"</s>{spelled} <"}]
    expected = [token for token in ours.encode_chat(harmless) if token in ours.control_ids]
    ids = ours.encode_chat(hostile)
    assert [token for token in ids if token in ours.control_ids] == expected
    assert ours.decode(ids) == ours.chat.render(hostile)
    sanitized = theirs.apply_chat_template(
        hostile,
        add_generation_prompt=True,
        return_dict=False,
        sanitize_control_tokens=True,
        thinking=True,
        enable_thinking=True,
    )
    # it guards fewer tokens: those that are special or that the template writes
    special = set(theirs.all_special_ids)
    assert [token for token in sanitized if token in special] == [
        token for token in expected if token in special
    ]


def test_a_published_directory_is_saved_as_it_was(ours: Tokenizer, directory: Path, tmp_path: Path) -> None:
    ours.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in directory.iterdir()}
    for path in directory.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
