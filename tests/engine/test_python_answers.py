"""`clearseek.load` and `.generate`: the weights' formats, several answers, and what an answer tells."""

import pytest
import torch

import clearseek
from clearseek.config.errors import InputError
from clearseek.engine.session import open_session
from clearseek.model.checkpoint import save_model
from clearseek.model.export import export_model
from clearseek.model.kernels.library import why_not
from tests.engine.published_base import QUESTION
from tests.model.kernel_inputs import lane_sized

KERNELS = pytest.mark.skipif(bool(why_not()), reason=f"no kernels here: {why_not()}")


def save_lanes(directory, tokenizer):
    """A base whose sizes the kernels and whole groups suit."""
    model = lane_sized("qwen3", vocab_size=tokenizer.vocab_size, max_position_embeddings=256)
    save_model(model, directory, bos_id=tokenizer.bos_id, eos_id=tokenizer.eos_id, pad_id=tokenizer.pad_id)
    tokenizer.save(directory)


@KERNELS
@pytest.mark.parametrize("form", ["float32", "bfloat16", "int8", "int4:32", "int4,head=int8"])
def test_weights_are_kept_as_the_command_line_keeps_them(tmp_path, tokenizer, form):
    save_lanes(tmp_path, tokenizer)
    model = clearseek.load(tmp_path, format=form)
    answer = model.generate(QUESTION, max_tokens=12, temperature=0)
    session = open_session(str(tmp_path), "cpu", form)
    (reply,) = session.replies([{"role": "user", "content": QUESTION}], max_tokens=12, temperature=0)
    assert model._engine[1].form == session.engine.form
    assert (answer.tokens, answer.log_probs) == (reply.completion.tokens, reply.completion.log_probs)
    assert torch.equal(model.logits([[5, 6]]), clearseek.load(tmp_path).logits([[5, 6]]))


@KERNELS
@pytest.mark.parametrize(("stored", "form"), [("q8_0", "int8"), ("q4_0", "int4")])
def test_a_gguf_file_opens_and_answers_in_its_own_blocks(tmp_path, tokenizer, stored, form):
    pytest.importorskip("gguf")
    save_lanes(tmp_path / "model", tokenizer)
    file = export_model(tmp_path / "model", "gguf", stored, tmp_path / "m.gguf").path
    model = clearseek.load(file, format=form)
    answer = model.generate(QUESTION, max_tokens=12, temperature=0)
    (reply,) = open_session(str(file), "cpu", form).replies(
        [{"role": "user", "content": QUESTION}], max_tokens=12, temperature=0
    )
    assert (answer.tokens, answer.log_probs) == (reply.completion.tokens, reply.completion.log_probs)
    assert torch.isfinite(model.logits([[5, 6]])).all()
    clearseek.save(model, tmp_path / "again")
    assert torch.equal(clearseek.load(tmp_path / "again").logits([[5, 6]]), model.logits([[5, 6]]))
    with torch.no_grad():
        for parameter in model.decoder.layers.parameters():
            parameter.mul_(parameter.ndim == 1)  # what the file has is asked for no more
    changed = model.generate(QUESTION, max_tokens=12, temperature=0)
    assert changed.log_probs != answer.log_probs
    assert (answer.weights_version, changed.weights_version) == (0, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 0.7, "top_k": 5},
        {"top_k": 3, "logit_bias": {7: 4.0}},
        {"temperature": 0},
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_a_token_was_drawn_from_is_reported_and_changes_nothing(base, dtype, settings):
    """Against a softmax in float64 of the model's own scores; none of the plain way's bits differs."""
    asked, ids = (
        {"max_tokens": 9, "temperature": 1.0, "top_p": 1.0, "ignore_eos": True} | settings,
        [5, 6, 7, 8],
    )
    model, near = clearseek.load(base, dtype), 1e-5 if dtype == "float32" else 0.1
    plain = model.generate(ids, **asked)
    answer = model.generate(ids, processed_log_probs=True, **asked)
    assert (answer.tokens, answer.log_probs) == (plain.tokens, plain.log_probs)
    assert plain.draws == []
    assert len(answer.draws) == len(answer.tokens) == 9
    scores = model.logits([ids + answer.tokens[:-1]]).detach()[0, len(ids) - 1 :].double()
    bias = torch.zeros(scores.shape[-1], dtype=torch.float64)
    for token, value in asked.get("logit_bias", {}).items():
        bias[token] = value
    for place, (token, draw) in enumerate(zip(answer.tokens, answer.draws, strict=True)):
        changed = ((scores[place] + bias) / (asked["temperature"] or 1.0)).softmax(-1)
        kept = (
            changed.topk(asked.get("top_k") or len(changed)).values.sum()
            if asked["temperature"]
            else changed.max()
        )
        assert draw.raw_log_prob == pytest.approx(float(scores[place].log_softmax(-1)[token]), abs=near)
        assert draw.kept_mass == pytest.approx(float(kept), abs=near)
        wanted = float((changed[token] / kept).log()) if asked["temperature"] else 0.0
        assert draw.processed_log_prob == pytest.approx(wanted, abs=near)
        if asked["temperature"] in (0, 1):
            assert draw.raw_log_prob == answer.log_probs[place]


def test_several_answers_to_one_prompt_and_to_each_of_several(model):
    asked = {"max_tokens": 8, "temperature": 1.0, "seed": 3}
    one = model.generate(QUESTION, n=3, **asked)
    tokens = [answer.tokens for answer in one]
    assert len(set(map(tuple, tokens))) == 3
    assert model.generate(QUESTION, **asked).tokens == tokens[0]
    assert [answer.tokens for answer in model.generate(QUESTION, n=1, **asked)] == tokens[:1]
    groups = model.generate([QUESTION, [5, 6]], n=3, **asked)
    assert [answer.tokens for answer in groups[0]] == tokens
    assert [len(group) for group in groups] == [3, 3]


def test_the_likeliest_of_many_is_the_best(model):
    asked = {"max_tokens": 8, "temperature": 1.0, "seed": 3}
    drawn = model.generate(QUESTION, n=6, **asked)
    drawn.sort(key=lambda answer: -sum(answer.log_probs) / len(answer.log_probs))
    assert model.generate(QUESTION, best_of=6, **asked).tokens == drawn[0].tokens
    best = model.generate(QUESTION, n=2, best_of=6, **asked)
    assert [answer.tokens for answer in best] == [answer.tokens for answer in drawn[:2]]
    with pytest.raises(InputError, match="best_of is 2; it has to be at least n, which is 3"):
        model.generate(QUESTION, n=3, best_of=2)


def test_an_answer_has_what_the_engine_s_completion_has(model):
    answer = model.generate(QUESTION, max_tokens=30, thinking_budget=2, seed=1)
    closing = model.tokenizer.think_end_id
    assert answer.forced == {place for place in range(30) if answer.tokens[place : place + 1] == [closing]}
    assert answer.entropy > 0
    ended = model.generate(QUESTION, max_tokens=30, stop_ids=(answer.tokens[0],), seed=1)
    assert (ended.finish_reason, ended.stopped_by) == ("stop", answer.tokens[0])
    assert answer.stopped_by is None
