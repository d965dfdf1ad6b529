"""Talking with a model: it says what the engine samples, in whole characters, parted at the tags."""

import json
import sys
from itertools import count

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.config.model import ModelConfig
from clearseek.engine.constraint import choice
from clearseek.engine.deadlines import Deadlines
from clearseek.engine.engine import Engine
from clearseek.engine.formats import Format
from clearseek.engine.request import Request, Sampling
from clearseek.engine.session import Session, open_session
from clearseek.engine.streams import stream_key
from clearseek.model.checkpoint import save_model
from clearseek.model.export import export_model
from clearseek.model.kernels.library import why_not
from clearseek.text.tokenizer import Tokenizer
from tests.model.tiny import GROUPED, LATENT, tiny_model

PHRASES = ("Let me check: 12 + 5 = 17.", "먼저 12 + 5 = 17 입니다.", "首先计算 12 + 5 = 17，正确。") * 20
QUESTION = [{"role": "user", "content": "12 + 5?"}]
SHAPES = {
    "deepseek_v3": LATENT,
    "qwen3": {"family": "qwen3", **GROUPED},
    "llama": {"family": "llama", **GROUPED},
}

WHOLE_GROUPS = {"family": "llama", **GROUPED, "hidden_size": 64, "intermediate_size": 96}


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

    def tokens(self, request, job):
        yield from self.tokenizer.encode(self.script)[: request.sampling.max_tokens]


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


def test_stop_strings_end_an_answer_wherever_tokens_are_cut(tokenizer):
    session = scripted(tokenizer, "12 + 5 = 17</think>17 = 12<｜end▁of▁sentence｜>")
    assert said(session, stop=("7 = 1",)) == {"thought": "12 + 5 = 17", "answer": "1"}
    assert session.finish_reason == "stop"


def test_replies_are_what_the_engine_answers(tmp_path, tokenizer, fp32):
    model = save(tmp_path, tokenizer, std=0.05)
    session = open_session(str(tmp_path), "cpu")
    prompt, sampling = tuple(tokenizer.encode_chat(QUESTION)), Sampling(0.6, 0.95, 20, top_log_probs=2)
    engine = Engine(model, tokenizer.stop_ids, torch.float32, tokenizer=tokenizer)
    (expected,) = engine.generate([Request(prompt, stream_key("session", 3), 2, sampling, best_of=4)])
    replies = session.replies(QUESTION, 20, 3, num_samples=2, best_of=4, top_log_probs=2)
    assert [reply.completion.tokens for reply in replies] == [one.tokens for one in expected]
    for reply in replies:
        completion = reply.completion
        assert [(one["token"], one["log_prob"]) for one in reply.records] == list(
            zip(completion.tokens, completion.log_probs, strict=True)
        )
        assert all(len(one["likeliest"]) == 2 for one in reply.records)
    assert session.prompt_tokens == len(prompt)
    assert session.completion_tokens <= 80
    assert session.tokens_per_second > 0 < session.seconds_to_first_token


def test_replies_and_a_stream_at_once_are_not_crossed(tmp_path, tokenizer):
    save(tmp_path, tokenizer, std=0.05)
    session = open_session(str(tmp_path), "cpu")
    alone = list(session.stream(QUESTION, 20, 1))
    (reply,) = session.replies(QUESTION, 30, 2)
    stream = session.stream(QUESTION, 20, 1)
    begun = [next(stream)]
    assert session.replies(QUESTION, 30, 2) == [reply]
    assert begun + list(stream) == alone


def test_what_is_late_is_the_answer_so_far_and_says_so(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    session, times = open_session(str(tmp_path), "cpu"), count()
    session.engine.deadlines = Deadlines(lambda: float(next(times)))  # a second goes by with every step
    settings = {"temperature": 1.0, "ignore_eos": True, "max_tokens": 60}
    whole = said(session, **settings)
    assert session.finish_reason == "length"
    begun = said(session, deadline_seconds=20.0, **settings)
    assert session.finish_reason == "deadline"
    assert 0 < session.completion_tokens < 60
    assert "".join(begun.values()).rstrip("\ufffd") in "".join(whole.values())
    (reply,) = session.replies(QUESTION, deadline_seconds=20.0, **settings)
    assert reply.completion.finish_reason == session.finish_reason == "deadline"
    assert 0 < len(reply.completion.tokens) < 60


def test_a_publisher_s_settings_are_the_defaults(tmp_path, tokenizer):
    save(tmp_path, tokenizer, std=0.05)
    published = {"temperature": 0.2, "top_k": 5, "do_sample": True, "transformers_version": "4"}
    plain = list(open_session(str(tmp_path), "cpu").stream(QUESTION, 20, temperature=0.2, top_k=5))
    (tmp_path / "generation_config.json").write_text(json.dumps(published))
    session = open_session(str(tmp_path), "cpu")
    assert session.defaults == {"temperature": 0.2, "top_p": 0.95, "top_k": 5}
    assert list(session.stream(QUESTION, 20)) == plain
    (tmp_path / "generation_config.json").write_text('{"do_sample": false, "temperature": 0.2}')
    assert open_session(str(tmp_path), "cpu").defaults["temperature"] == 0


def test_a_publisher_s_setting_that_can_t_be_meant_is_refused_by_file(tmp_path, tokenizer):
    save(tmp_path, tokenizer)
    (tmp_path / "generation_config.json").write_text('{"top_p": "high"}')
    with pytest.raises(InputError, match=r"generation_config\.json: top_p is 'high'; it has to be above 0"):
        open_session(str(tmp_path), "cpu")


def test_weights_can_be_kept_in_another_format(tmp_path, tokenizer):
    if why_not():
        pytest.skip(why_not())
    save(tmp_path, tokenizer, WHOLE_GROUPS, std=0.05)
    session = open_session(str(tmp_path), "cpu", "int8:32")
    assert said(session, max_tokens=10)
    assert session.engine.runner.layout.form == Format("int8", 32)


def test_a_format_that_a_model_can_t_have_is_refused(tmp_path, tokenizer):
    save(tmp_path, tokenizer, {**WHOLE_GROUPS, "intermediate_size": 48})
    with pytest.raises(InputError, match=r"can't be kept in int4 here: .*; take bfloat16 or float32"):
        open_session(str(tmp_path), "cpu", "int4")
    assert said(open_session(str(tmp_path), "cpu", "float32"), max_tokens=5)


def test_a_constraint_is_obeyed_after_the_thought(tmp_path, tokenizer):
    pytest.importorskip("llguidance")
    save(tmp_path, tokenizer, std=0.05)
    session = open_session(str(tmp_path), "cpu")
    parts = said(session, max_tokens=60, thinking_budget=5, constraint=choice(["17", "12"]))
    assert parts["answer"] in ("17", "12")


def test_without_the_extra_a_constraint_says_what_to_install(tmp_path, tokenizer, monkeypatch):
    save(tmp_path, tokenizer)
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InputError, match=r"needs an extra: pip install 'clearseek\[constraints\]'"):
        said(open_session(str(tmp_path), "cpu"), constraint=choice(["17"]))


@pytest.mark.skipif(bool(why_not()), reason=f"no kernels here: {why_not()}")
@pytest.mark.parametrize(("dtype", "kept"), [("q8_0", "int8"), ("q4_0", "q4_0"), ("bf16", None)])
def test_a_gguf_file_is_talked_to_in_its_own_blocks(dtype, kept, tokenizer, tmp_path):
    pytest.importorskip("gguf")
    save(tmp_path / "model", tokenizer, WHOLE_GROUPS, std=0.05)
    out = export_model(tmp_path / "model", "gguf", dtype, tmp_path / "m.gguf").path
    session = open_session(str(out))
    assert bool(said(session, max_tokens=5))
    assert session.engine.form.is_as_stored == (kept is not None)
    assert kept is None or session.engine.form.name == kept
    assert session.model.embedding.weight.is_meta == (kept is not None)
    asked = open_session(str(out), form="int4")
    assert asked.engine.form == Format("int4")
