"""The tokenizer: nothing is lost, digits stand alone, directories are read as published models write them."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError, RunError
from clearseek.text.tokenizer import SPECIAL_TOKENS, Tokenizer

MIXED = "둘은 12 + 5=17, 先 3*4 then -8\n\n\t x\u0301 é １２ ٣ 🙂 ½ <div> don't "


def pieces(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.decode([token]) for token in tokenizer.encode(text)]


@given(text=st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.decode(tokenizer.encode_plain(text)) == text


@given(parts=st.lists(st.sampled_from([*SPECIAL_TOKENS, "<", "think>", " ", "7", "답", "。", "\n", "</thi"])))
@settings(max_examples=200, deadline=None)
def test_text_with_special_tokens_comes_back(tokenizer: Tokenizer, parts: list[str]) -> None:
    text = "".join(parts)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    plain = tokenizer.encode_plain(text)
    assert tokenizer.decode(plain) == text
    assert not set(plain) & set(range(len(SPECIAL_TOKENS)))


@given(text=st.text(st.sampled_from("0123456789 +-*/=(),.x답是\n")))
@settings(max_examples=200, deadline=None)
def test_every_digit_is_a_token_of_its_own(tokenizer: Tokenizer, text: str) -> None:
    for piece in pieces(tokenizer, text):
        assert not any(character.isdigit() for character in piece) or len(piece) == 1


def test_operators_stand_alone_and_take_their_spaces(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, "12 + 5 = 17") == ["1", "2", " + ", "5", " = ", "1", "7"]
    assert pieces(tokenizer, "1+(2-3)*4=0") == ["1", "+", "(", "2", "-", "3", ")", "*", "4", "=", "0"]


def test_frequent_phrases_are_few_tokens(tokenizer: Tokenizer) -> None:
    assert pieces(tokenizer, " 먼저 확인하면") != list(" 먼저 확인하면")
    assert len(tokenizer.encode("首先计算 12")) <= 4
    assert pieces(tokenizer, "the answer is 17.") == ["the", " answer", " is ", "1", "7", "."]


def test_special_tokens_have_the_first_ids(tokenizer: Tokenizer) -> None:
    assert [tokenizer.token_id(token) for token in SPECIAL_TOKENS] == list(range(7))
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (0, 1, 2)
    assert (tokenizer.think_start_id, tokenizer.think_end_id) == (5, 6)
    assert 263 < tokenizer.vocab_size <= 512


def test_encode_adds_nothing_and_decode_keeps_thought_tags(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("") == []
    ids = tokenizer.encode("<｜begin▁of▁sentence｜><think>1</think>2<｜end▁of▁sentence｜>")
    assert ids[0] == 0
    assert ids[-1] == 1
    assert tokenizer.decode(ids, skip_special=True) == "<think>1</think>2"


def test_batches_give_what_single_texts_give(tokenizer: Tokenizer) -> None:
    texts = ["", MIXED, "a", *(f"{number} + 1" for number in range(50)), ""]
    expected = [tokenizer.encode(text) for text in texts]
    assert tokenizer.encode_batch(texts) == expected
    ids, offsets = tokenizer.encode_packed(texts)
    assert ids.dtype == np.int32
    assert offsets.dtype == np.int64
    assert [ids[a:b].tolist() for a, b in itertools.pairwise(offsets)] == expected
    ids, offsets = tokenizer.encode_packed([])
    assert len(ids) == 0
    assert offsets.tolist() == [0]


def test_plain_batches_hold_no_special_tokens(tokenizer: Tokenizer) -> None:
    texts = ["a <think> b", "<｜User｜>"]
    ids, offsets = tokenizer.encode_packed(texts, plain=True)
    assert ids[: offsets[1]].tolist() == tokenizer.encode_plain(texts[0])
    assert tokenizer.encode_batch(texts, plain=True)[1] == tokenizer.encode_plain(texts[1])


def test_training_gives_the_same_tokenizer_in_every_process(
    tokenizer: Tokenizer, phrases: tuple[str, ...]
) -> None:
    program = (
        "import sys; from clearseek.text.tokenizer import Tokenizer;"
        "print(Tokenizer.train(sys.argv[1:] * 20, 512).fingerprint)"
    )
    for threads in ("true", "false"):
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": threads, "PYTHONHASHSEED": "random"}
        done = subprocess.run(
            [sys.executable, "-c", program, *phrases],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == tokenizer.fingerprint


def test_importing_the_room_settles_nothing() -> None:
    program = (
        "import os, sys; before = dict(os.environ);"
        "from clearseek.text import chat, packing, sources, thoughts, tokenizer;"
        "assert dict(os.environ) == before;"
        "assert not {'torch', 'tokenizers', 'jinja2', 'pyarrow', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_small_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match=r"vocab_size \(100\) must be at least 263"):
        Tokenizer.train(["a"], 100)


def test_saving_and_loading_changes_nothing(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new")
    loaded = Tokenizer.load(tmp_path / "new")
    assert loaded.fingerprint == tokenizer.fingerprint
    assert loaded.chat.source == tokenizer.chat.source
    assert loaded.encode(MIXED) == tokenizer.encode(MIXED)
    loaded.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_saving_under_a_file_is_an_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="could not be written"):
        tokenizer.save(tmp_path / "file" / "below")


def edit_config(directory: Path, **changes: object) -> None:
    path = directory / "tokenizer_config.json"
    content = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def test_a_broken_template_is_named_with_its_directory(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ x ")
    with pytest.raises(InputError, match=rf"^{tmp_path}: chat template: unexpected end"):
        Tokenizer.load(tmp_path).chat.render([])


def test_templates_are_found_where_models_keep_them(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    edit_config(tmp_path, chat_template="A{{ bos_token }}")
    assert Tokenizer.load(tmp_path).chat.render([]) == "A<｜begin▁of▁sentence｜>"
    edit_config(
        tmp_path, chat_template=[{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    )
    assert Tokenizer.load(tmp_path).chat.render([]) == "D"
    edit_config(tmp_path, chat_template=[{"name": "tool_use"}])
    with pytest.raises(InputError, match=r"tokenizer_config\.json: chat_template"):
        Tokenizer.load(tmp_path)


def test_a_base_model_without_template_or_thought_tokens_loads(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    edit_config(tmp_path, bos_token=None, pad_token=None, eos_token={"content": "</s>", "lstrip": False})
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["added_tokens"] = [{**content["added_tokens"][1], "content": "</s>"}]
    del content["model"]["vocab"]["<think>"], content["model"]["vocab"]["</think>"]
    content["model"]["vocab"]["</s>"] = content["model"]["vocab"].pop("<｜end▁of▁sentence｜>")
    path.write_text(json.dumps(content), encoding="utf-8")
    base = Tokenizer.load(tmp_path)
    assert (base.think_start_id, base.think_end_id, base.bos_id) == (None, None, None)
    assert base.pad_id == base.eos_id == 1
    assert base.chat.render_problem("1+1?") == "User: 1+1?\n\nAssistant: <think>"
    assert (
        base.decode(base.encode_chat([{"role": "user", "content": "</s>"}]))
        == "User: </s>\n\nAssistant: <think>"
    )


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_missing_and_broken_files_are_named(tokenizer: Tokenizer, tmp_path: Path, name: str) -> None:
    tokenizer.save(tmp_path)
    whole = (tmp_path / name).read_bytes()
    for content in (whole[:50], b"[]", b'{"a": 1}', b"\xff\xfe"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name.replace(".", r"\.")) as caught:
            Tokenizer.load(tmp_path)
        assert "\n" not in str(caught.value)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match="no such file"):
        Tokenizer.load(tmp_path)


def test_half_a_character_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode("a\ud800")
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode_batch(["ok", "\udfff"])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system doesn't fork")
def test_a_forked_child_encodes_without_threads() -> None:
    """With threads it would wait for ever for those that stayed behind in its parent."""
    program = (
        "import os; from clearseek.text.tokenizer import Tokenizer;"
        "tokenizer = Tokenizer.train(['a b c 1'] * 9, 300);"
        "texts = ['a b 1'] * 5000; tokenizer.encode_batch(texts);"
        "child = os.fork();"
        "child or (tokenizer.encode_batch(texts), os._exit(7));"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TOKENIZERS_PARALLELISM"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, capture_output=True)
    assert done.returncode == 7, done.stderr
    assert not done.stderr
