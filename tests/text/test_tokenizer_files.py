"""Tokenizer directories as they are published: tokens declared in every way, files kept, other formats named."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.text.tokenizer import BOS, EOS, PAD, Tokenizer

USER = [{"role": "user", "content": "1"}]


@pytest.fixture
def directory(tokenizer: Tokenizer, tmp_path: Path) -> Path:
    """Our own tokenizer's directory, to be changed into a published one's."""
    made = tmp_path / "published"
    tokenizer.save(made)
    return made


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file, or remove them where the value is None."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes} if path.is_file() else changes
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")


def as_object(text: str, **options: bool) -> dict[str, Any]:
    """A token as transformers serialises it."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"__type": "AddedToken", "content": text, **flags, **options}


def test_tokens_may_be_objects(directory: Path) -> None:
    edit(
        directory / "tokenizer_config.json",
        bos_token=as_object(BOS),
        eos_token=as_object(EOS),
        pad_token=None,
    )
    loaded = Tokenizer.load(directory)
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id) == (0, 1, 1)


def test_tokens_may_stand_in_the_map_of_older_checkpoints(directory: Path) -> None:
    edit(directory / "tokenizer_config.json", bos_token=None, eos_token=None, pad_token=None)
    edit(directory / "special_tokens_map.json", bos_token=as_object(BOS), eos_token=EOS, pad_token=PAD)
    loaded = Tokenizer.load(directory)
    assert (loaded.bos_id, loaded.eos_id, loaded.pad_id) == (0, 1, 2)


def test_the_map_does_not_count_beside_a_list_of_added_tokens(directory: Path) -> None:
    edit(directory / "tokenizer_config.json", added_tokens_decoder={"1": as_object(EOS)}, pad_token=None)
    edit(directory / "special_tokens_map.json", pad_token=PAD)
    assert Tokenizer.load(directory).pad_id == 1


def test_a_model_may_have_no_beginning(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text(
        "{{ bos_token is defined }}{{ bos_token }}|{{ pad_token }}"
    )
    edit(directory / "tokenizer_config.json", bos_token=None)
    loaded = Tokenizer.load(directory)
    assert loaded.bos_id is None
    assert loaded.chat.render(USER) == f"False|{PAD}"


def test_a_models_own_tokens_have_names_in_templates(directory: Path) -> None:
    (directory / "chat_template.jinja").write_text("{{ image_token }}{{ audio_token }}")
    edit(
        directory / "tokenizer_config.json",
        image_token="<think>",
        extra_special_tokens={"audio_token": "</think>"},
        add_bos_token=True,
    )
    loaded = Tokenizer.load(directory)
    assert loaded.chat.render(USER) == "<think></think>"
    assert loaded.encode_chat(USER) == [5, 6]


@pytest.mark.parametrize("named", [1, [1, 0], [900, 1]])
def test_the_end_may_stand_in_the_models_own_files(directory: Path, named: Any) -> None:
    edit(directory / "tokenizer_config.json", eos_token=None)
    with pytest.raises(InputError, match="eos_token None is not a token"):
        Tokenizer.load(directory)
    edit(directory / "generation_config.json", eos_token_id=named)
    assert Tokenizer.load(directory).eos_id == 1


def test_every_end_that_the_model_s_own_files_name_stops(directory: Path) -> None:
    """generation_config.json's, else config.json's: as transformers generates; and the tokenizer's own."""
    assert Tokenizer.load(directory).stop_ids == {1}
    edit(directory / "config.json", eos_token_id=[3, 4])
    assert Tokenizer.load(directory).stop_ids == {1, 3, 4}
    edit(directory / "generation_config.json", eos_token_id=2)
    assert Tokenizer.load(directory).stop_ids == {1, 2}
    edit(directory / "generation_config.json", eos_token_id=None)
    assert Tokenizer.load(directory).stop_ids == {1, 3, 4}


def test_tokens_that_only_the_config_declares_are_tokens(directory: Path, tokenizer: Tokenizer) -> None:
    size = tokenizer.vocab_size
    added = {str(size): as_object("<call>", special=False), str(size + 1): as_object("<end>")}
    edit(directory / "tokenizer_config.json", added_tokens_decoder=added)
    loaded = Tokenizer.load(directory)
    assert loaded.encode("1<call><end>")[1:] == [size, size + 1]
    assert loaded.vocab_size == size + 2
    assert {size, size + 1} <= loaded.control_ids
    added = {str(size + 3): as_object("<call>")}
    edit(directory / "tokenizer_config.json", added_tokens_decoder=added)
    with pytest.raises(
        InputError, match=rf"tokenizer_config\.json: added_tokens_decoder\.{size + 3} is '<call>'"
    ):
        Tokenizer.load(directory)


@pytest.mark.parametrize("listed", [[1], {"x": {}}, {"3": {"lstrip": True}}, {"3": 7}])
def test_a_broken_list_of_added_tokens_is_named(directory: Path, listed: Any) -> None:
    edit(directory / "tokenizer_config.json", added_tokens_decoder=listed)
    with pytest.raises(InputError, match=r"tokenizer_config\.json: added_tokens_decoder"):
        Tokenizer.load(directory)


def test_a_named_token_of_the_vocabulary_is_special_and_another_is_none(directory: Path) -> None:
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] != EOS]
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    edit(directory / "tokenizer_config.json", pad_token="[PAD]")
    loaded = Tokenizer.load(directory)
    assert loaded.encode(EOS) == [1]
    assert loaded.pad_id == 1
    assert loaded.vocab_size == Tokenizer.load(directory).vocab_size <= 512


def test_ids_left_out_count_as_ids(directory: Path, tokenizer: Tokenizer) -> None:
    """The embedding needs a row for the last id, whatever lies below it."""
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["vocab"]["<far>"] = 700
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    assert Tokenizer.load(directory).vocab_size == 701


def test_tools_take_the_template_that_is_named_for_them(directory: Path) -> None:
    folder = directory / "additional_chat_templates"
    folder.mkdir()
    (directory / "chat_template.jinja").write_text("default")
    (folder / "tool_use.jinja").write_text("{% for t in tools %}{{ t.name }}{% endfor %}")
    chat = Tokenizer.load(directory).chat
    assert chat.render(USER) == "default"
    assert chat.render(USER, tools=[{"name": "T"}]) == "T"
    assert chat.render(USER, tools=[]) == ""


def test_templates_without_a_default_are_refused(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()
    edit(directory / "tokenizer_config.json", chat_template=[{"name": "rag", "template": "R"}])
    with pytest.raises(InputError, match=r"chat templates \(rag\) and none of them named default"):
        Tokenizer.load(directory)


def test_a_template_in_a_json_file_is_found(directory: Path) -> None:
    (directory / "chat_template.jinja").unlink()
    edit(directory / "chat_template.json", chat_template="J")
    assert Tokenizer.load(directory).chat.render(USER) == "J"


def test_every_published_file_is_saved_byte_for_byte(directory: Path, tmp_path: Path) -> None:
    (directory / "additional_chat_templates").mkdir()
    others = (
        "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "tokenizer.model",
        "qwen.tiktoken", "tokenization_qwen.py", "additional_chat_templates/tool_use.jinja",
    )  # fmt: skip
    for name in others:
        (directory / name).write_bytes(b"{}\r\n" if name.endswith(".json") else b"\xff as it is \r\n")
    (directory / "additional_chat_templates/tool_use.jinja").write_bytes(b"T\r\n")
    config = (directory / "tokenizer_config.json").read_text(encoding="utf-8")
    (directory / "tokenizer_config.json").write_text(config.replace("\n", "\n ") + "\n\n", encoding="utf-8")
    (directory / "model.safetensors").write_bytes(b"not the tokenizer's")
    Tokenizer.load(directory).save(tmp_path / "saved")
    written = {
        path.relative_to(tmp_path / "saved") for path in (tmp_path / "saved").rglob("*") if path.is_file()
    }
    published = {path.relative_to(directory) for path in directory.rglob("*") if path.is_file()}
    assert written == published - {Path("model.safetensors")}
    for path in written:
        assert (tmp_path / "saved" / path).read_bytes() == (directory / path).read_bytes()


def test_a_base_model_is_saved_with_the_template_that_it_was_trained_in(
    directory: Path, tmp_path: Path
) -> None:
    (directory / "chat_template.jinja").unlink()
    base = Tokenizer.load(directory)
    base.save(tmp_path / "saved")
    assert Tokenizer.load(tmp_path / "saved").chat.source == base.chat.source
    assert (tmp_path / "saved" / "tokenizer.json").read_bytes() == (directory / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["tokenizer.model"], r"tokenizer\.model: a sentencepiece model .* AutoTokenizer\.from_pretrained"),
        (["qwen.tiktoken", "tokenization_qwen.py"], r"qwen\.tiktoken: .*stand in tokenization_qwen\.py"),
        (["hy.tiktoken"], r"hy\.tiktoken: .*TikTokenConverter\('hy\.tiktoken'"),
        (["tokenization_own.py"], r"tokenization_own\.py: the tokenizer is code"),
        ([], r"tokenizer\.json: no such file"),
    ],
)
def test_other_formats_are_told_how_to_be_converted(directory: Path, names: list[str], told: str) -> None:
    (directory / "tokenizer.json").unlink()
    for name in names:
        (directory / name).write_bytes(b"")
    with pytest.raises(InputError, match=told):
        Tokenizer.load(directory)


KEYS = ("content", "special", "lstrip", "0", "5", "-1", "default", "name", "template", "x_token")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 600) | st.sampled_from(["", BOS, EOS, "x", "{{ x", "{% for"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(KEYS), values, max_size=3),
    max_leaves=6,
)
CONFIG_KEYS = (
    "bos_token", "eos_token", "pad_token", "added_tokens_decoder", "additional_special_tokens",
    "extra_special_tokens", "chat_template", "image_token", "eos_token_id",
)  # fmt: skip


@given(
    tables=st.lists(st.dictionaries(st.sampled_from(CONFIG_KEYS), JSON, max_size=4), min_size=3, max_size=3)
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_the_files_declare_is_read_or_refused(directory: Path, tables: list[dict[str, Any]]) -> None:
    names = ("tokenizer_config.json", "special_tokens_map.json", "generation_config.json")
    (directory / "chat_template.jinja").unlink(missing_ok=True)
    for name, table in zip(names, tables, strict=True):
        (directory / name).write_text(json.dumps(table), encoding="utf-8")
    named = str(directory)
    try:
        Tokenizer.load(directory).encode_chat(USER)
    except InputError as error:
        named = str(error)
    assert str(directory) in named


@pytest.mark.parametrize("place", ["vocab", "added_tokens"])
@pytest.mark.parametrize("index", [-1, 2**24, 2**32 - 1, 2**70, 1.5, "1", None])
def test_ids_that_the_library_would_count_up_to_are_refused(directory: Path, place: str, index: Any) -> None:
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    if place == "vocab":
        content["model"]["vocab"]["far"] = index
    else:
        content["added_tokens"][3]["id"] = index
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"tokenizer\.json: token '.*' has id"):
        Tokenizer.load(directory)


def test_a_prefix_that_would_end_the_process_is_refused(directory: Path) -> None:
    content = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    content["model"]["continuing_subword_prefix"] = "("
    (directory / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"tokenizer\.json: merge \[.* doesn't go on with the model's prefix '\('"
    ):
        Tokenizer.load(directory)
