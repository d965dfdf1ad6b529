"""Talking with a model: it says what the engine samples, in whole characters, parted at the tags."""

import json

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from clearseek.engine.session import Session, open_session
from clearseek.engine.streams import stream_key
from clearseek.model.checkpoint import save_model
from clearseek.text.tokenizer import Tokenizer
from tests.model.tiny import GROUPED, LATENT, tiny_model

PHRASES = ("Let me check: 12 + 5 = 17.", "먼저 12 + 5 = 17 입니다.", "首先计算 12 + 5 = 17，正确。") * 20
QUESTION = [{"role": "user", "content": "12 + 5?"}]
SHAPES = {
    "deepseek_v3": LATENT,
    "qwen3": {"family": "qwen3", **GROUPED},
    "llama": {"family": "llama", **GROUPED},
}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(PHRASES, 400)


def save(directory, tokenizer, shape=LATENT, context=512, seed=0, std=0.2):
    """A checkpoint of random weights with its tokenizer."""
    config = ModelConfig(**shape | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": context})
    model = tiny_model(config, seed, std)
    save_model(model, directory, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)
    return model


@pytest.fixture
def fp32(monkeypatch):
    """Computing in fp32, so that two ways of computing the same agree."""
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)


def said(session, **settings):
    parts = {"thought": "", "answer": ""}
    for kind, piece in session.stream(QUESTION, **settings):
        assert piece
        parts[kind] += piece
    return parts


class Scripted(Session):
    """A session whose model says what a test wrote."""

    script = ""

    def tokens(self, prompt, key, sampling):
        yield from self.tokenizer.encode(self.script)[: sampling.max_tokens]


def scripted(tokenizer, script, context=512):
    config = ModelConfig(**LATENT | {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": context})
    session = Scripted(tiny_model(config), tokenizer, torch.float32)
    session.script = script
    return session


@pytest.mark.parametrize("family", SHAPES)
def test_a_session_says_what_the_engine_samples(tmp_path, tokenizer, fp32, family):
    model = save(tmp_path, tokenizer, SHAPES[family])
    session = open_session(str(tmp_path), "cpu")
    prompt = tuple(tokenizer.encode_chat(QUESTION))
    key, sampling = stream_key("session", 7), Sampling(0.6, 0.95, 60)
    engine = Engine(model, tokenizer.stop_ids, torch.float32)
    ((completion,),) = engine.generate([Request(prompt, key, 1, sampling)])
    parts = said(session, max_tokens=60, seed=7)
    thought, answer = tokenizer.chat.split_completion(tokenizer.decode(completion.tokens, skip_special=True))
    assert parts["thought"] == thought
    assert parts["answer"].strip() == (answer or "")
    assert session.completion_tokens == len(completion.tokens)
    assert session.finish_reason == completion.finish_reason


def test_the_same_seed_says_the_same_and_another_does_not(tmp_path, tokenizer):
    save(tmp_path, tokenizer, std=0.05)
    session = open_session(str(tmp_path), "cpu")
    first = said(session, seed=1, max_tokens=30)
    assert said(session, seed=1, max_tokens=30) == first
    assert said(session, seed=2, max_tokens=30) != first


def test_thought_and_answer_are_parted(tokenizer):
    session = scripted(tokenizer, "12 + 5 = 17</think>17<｜end▁of▁sentence｜>never said")
    assert said(session) == {"thought": "12 + 5 = 17", "answer": "17"}
    assert session.finish_reason == "stop"
    assert session.completion_tokens == len(tokenizer.encode("12 + 5 = 17</think>17")) + 1


def test_without_thinking_all_is_answer(tokenizer):
    session = scripted(tokenizer, "17<｜end▁of▁sentence｜>")
    assert said(session, thinking=False) == {"thought": "", "answer": "17"}


def test_no_piece_holds_half_a_character(tokenizer):
    session = scripted(tokenizer, "생각 🤔 思考</think>답 🎉")
    pieces = [piece for _, piece in session.stream(QUESTION)]
    assert "".join(pieces) == "생각 🤔 思考답 🎉"
    assert not any("\ufffd" in piece for piece in pieces)


def test_an_answer_cut_short_says_so(tokenizer):
    session = scripted(tokenizer, "12 + 5 = 17</think>17")
    parts = said(session, max_tokens=3)
    assert parts["answer"] == ""
    assert session.finish_reason == "length"
    assert session.completion_tokens == 3


def test_an_answer_ends_where_the_context_does(tokenizer):
    prompt = len(tokenizer.encode_chat(QUESTION))
    session = scripted(tokenizer, "12 + 5 = 17", context=prompt + 2)
    said(session, max_tokens=100)
    assert session.completion_tokens == 2
    assert session.finish_reason == "length"


def test_a_conversation_beyond_the_context_is_refused_with_both_numbers(tokenizer):
    prompt = len(tokenizer.encode_chat(QUESTION))
    session = scripted(tokenizer, "17", context=prompt)
    with pytest.raises(InputError, match=rf"\({prompt} tokens\) fills .* context of {prompt} tokens"):
        session.stream(QUESTION)


def test_a_stopped_answer_leaves_the_session_usable(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    session = open_session(str(tmp_path), "cpu")
    pieces = session.stream(QUESTION, max_tokens=50)
    next(pieces)
    pieces.close()  # what Ctrl-C does to a generator
    assert session.finish_reason == "cancelled"
    assert said(session, max_tokens=20) == said(session, max_tokens=20)


def test_two_answers_at_once_are_not_crossed(tmp_path, tokenizer):
    save(tmp_path, tokenizer, std=0.05)
    session = open_session(str(tmp_path), "cpu")
    alone = [list(session.stream(QUESTION, seed=seed, max_tokens=20)) for seed in (1, 2)]
    first, second = (session.stream(QUESTION, seed=seed, max_tokens=20) for seed in (1, 2))
    begun = [next(first)]
    assert list(second) == alone[1]
    assert begun + list(first) == alone[0]


def test_a_publisher_s_other_end_tokens_end_an_answer(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    other = tokenizer.encode_plain("=")[0]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [other, 1]}))
    session = open_session(str(tmp_path), "cpu")
    session.tokens = lambda *_: iter(tokenizer.encode_plain("1=2"))
    assert said(session) == {"thought": "1", "answer": ""}
    assert session.finish_reason == "stop"


def test_a_model_s_own_chat_template_is_used(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}Q: {{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}A:{{ ' <think>' if enable_thinking else '' }}{% endif %}"
    )
    session = open_session(str(tmp_path), "cpu")
    assert session.tokenizer.chat.render(QUESTION) == "Q: 12 + 5?\nA: <think>"
    said(session, max_tokens=5)


def test_a_tokenizer_that_does_not_belong_is_refused(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    larger = Tokenizer.train([*PHRASES, *map(chr, range(0x4E00, 0x4F00))], 700)
    larger.save(tmp_path)
    with pytest.raises(InputError, match=f"tokenizer has {larger.vocab_size} tokens"):
        open_session(str(tmp_path), "cpu")


def test_a_place_without_a_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="is neither a run"):
        open_session(str(tmp_path), "cpu")
