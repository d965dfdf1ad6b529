"""What is wrong with one request is told of it alone: before it runs where it can be known, else as its "error"."""

import dataclasses

import pytest
import torch

from clearseek.config.errors import InputError
from clearseek.engine import constraint
from clearseek.engine.engine import Engine
from clearseek.engine.request import Request, Sampling
from tests.engine.finishing import finished
from tests.engine.scripted import small_tokenizer
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import CONFIGS, tiny_model

TOKENIZER = small_tokenizer()
END = TOKENIZER.eos_id
CHANGES = {"vocab_size": TOKENIZER.vocab_size, "max_position_embeddings": 512, "tie_word_embeddings": False}
SHAPES = {
    "with kernels": lambda: lane_sized("qwen3", **CHANGES),
    "without kernels": lambda: tiny_model(CONFIGS["qwen3"].model_copy(update=CHANGES)),
}
GOOD = [Request(tuple(range(5, 5 + n)), n, 2, Sampling(max_tokens=70)) for n in (3, 40, 9)]
WRONG = [
    (Request((), 0), "a prompt must hold at least one token"),
    (
        Request((1,) * 500, 0),
        r"prompt \(500 tokens\) and max_tokens \(96\) exceed the model's context of 512 tokens",
    ),
    (Request((1, 320), 0), "the prompt names token 320; token ids are whole numbers from 0 to 319"),
    (Request((1, -1), 0), "the prompt names token -1"),
    (Request((1, 1.5), 0), "the prompt names token 1.5"),
    (Request((1,), 0, sampling=Sampling(0, 0.0)), "top_p is 0.0; it has to be above 0"),
    (
        Request((1,), 0, sampling=Sampling(constraint=constraint.regex("a"), ignore_eos=True)),
        "ignore_eos and constraint contradict",
    ),
    (Request((1,), 0, 3, Sampling(), 2), "best_of is 2; it has to be at least n, which is 3"),
    (
        Request((1,), 0, sampling=Sampling(constraint=constraint.json_schema({"$ref": "#"}))),
        "no text satisfies the json_schema",
    ),
    (
        Request(
            (1,),
            0,
            sampling=Sampling(constraint=constraint.json_schema('{"items":' * 3000 + "{}" + "}" * 3000)),
        ),
        "the json_schema can't be used: recursion limit exceeded",
    ),
    (Request((1,) * 200, 0), "needs more cache than there is room for"),
]


def engine_of(name, **settings):
    model = SHAPES[name]().requires_grad_(False)
    return Engine(model, [END], torch.float32, tokenizer=TOKENIZER, **settings)


def needs_library(request):
    if request.sampling.constraint is not None:
        pytest.importorskip("llguidance")


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=lambda value: value if isinstance(value, str) else "")
def test_a_wrong_request_is_named_and_those_on_their_way_go_on(wrong, said, monkeypatch):
    """Submitted beside others it raises by itself; in a list it raises before anything runs."""
    needs_library(wrong)
    if "cache" in said:
        monkeypatch.setattr(Engine, "_most_blocks", lambda self: 3)
    engine = engine_of("with kernels")
    wanted = engine.generate(GOOD)
    answers = [engine.submit(request) for request in GOOD]
    engine.step()
    with pytest.raises(InputError, match=said) as caught:
        engine.submit(wrong)
    assert "\n" not in str(caught.value)
    found = finished(engine)
    assert [[found[answer] for answer in group] for group in answers] == wanted
    heard = []
    with pytest.raises(InputError, match=said):
        engine.generate([*GOOD, wrong], lambda *told: heard.append(told))
    assert heard == []
    assert engine.is_idle
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("name", SHAPES)
def test_scores_that_are_no_numbers_end_their_own_answer_alone(name):
    """Drawn by a kernel, truncated, the likeliest or by force of a constraint; blocks are used anew without harm."""
    model = SHAPES[name]().requires_grad_(False)
    wanted = Engine(model, [END], torch.float32, tokenizer=TOKENIZER).generate(GOOD)
    said = {token for group in wanted for completion in group for token in completion.tokens}
    broken = next(token for token in range(90, 320) if token not in said)
    model.embedding.weight[broken] = torch.nan
    for other in {}, {"top_k": 3}, {"temperature": 0}, {"top_p": 0.5}, {"logit_bias": {7: 1.0}}:
        engine = Engine(model, [END], torch.float32, num_slots=4, tokenizer=TOKENIZER)
        lost = Request((5, 6, 7, broken), 1, 3, Sampling(**other))
        bad = engine.submit(lost)
        good = [engine.submit(request) for request in GOOD]
        bad += engine.submit(dataclasses.replace(lost, prompt=(*range(5, 75), broken)))
        found = finished(engine)
        for answer in bad:
            assert found[answer].finish_reason == "error"
            assert (
                found[answer].error
                == f"the model's scores after {len(answer.request.prompt)} tokens are no numbers"
            )
            assert found[answer].tokens == found[answer].log_probs == []
        if name == "with kernels":
            assert [[found[answer] for answer in group] for group in good] == wanted
        for group, those in zip(good, wanted, strict=True):
            assert [found[answer].tokens for answer in group] == [completion.tokens for completion in those]
        assert engine.pool.num_free == engine.pool.num_blocks
        engine.generate([lost], lambda *told: pytest.fail(f"{told} was announced"))


@pytest.mark.parametrize("name", SHAPES)
def test_an_answer_that_says_what_breaks_it_ends_there(name):
    model = SHAPES[name]().requires_grad_(False)
    (request,) = [Request((5, 6, 7), 1, 1, Sampling(max_tokens=70))]
    ((whole,),) = Engine(model, [], torch.float32).generate([request])
    model.embedding.weight[whole.tokens[9]] = torch.nan
    ((broken,),) = Engine(model, [], torch.float32).generate([request])
    first = whole.tokens.index(whole.tokens[9])
    assert broken.tokens == whole.tokens[: first + 1]
    assert broken.finish_reason == "error"
    assert broken.entropy > 0


def test_a_constraint_that_becomes_too_complex_ends_its_own_answer_alone(monkeypatch):
    pytest.importorskip("llguidance")
    engine = engine_of("with kernels")
    wanted = engine.generate(GOOD)
    sampling = Sampling(constraint=constraint.regex("[a-z]{300}", thinks_first=False))
    answers = [engine.submit(request) for request in GOOD]
    (bad,) = engine.submit(Request((5, 6), 1, 1, sampling))
    monkeypatch.setattr("clearseek.engine.grammar._SECONDS", 0.0)
    found = finished(engine)
    assert found[bad].finish_reason == "error"
    assert found[bad].error.startswith("constraint: the regex took more than 0 s to follow")
    assert [[found[answer] for answer in group] for group in answers] == wanted
    assert engine.pool.num_free == engine.pool.num_blocks


@pytest.mark.parametrize("name", SHAPES)
def test_a_stop_string_across_tokens_ends_its_own_answer_alone(name):
    engine = engine_of(name)
    free = dataclasses.replace(GOOD[1], sampling=Sampling(max_tokens=70, stop=("\0",)))
    ((whole, _),) = engine.generate([free])
    pieces = [TOKENIZER.decode([token]) for token in whole.tokens]
    place = next(i for i in range(5, 60) if all(p.isascii() and len(p) for p in pieces[i : i + 3]))
    stop = pieces[place][-1] + pieces[place + 1] + pieces[place + 2][0]
    stopping = dataclasses.replace(free, sampling=Sampling(max_tokens=70, stop=(stop,)))
    (cut, _), (beside, _) = engine.generate([stopping, free])
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert (cut.finish_reason, cut.stopped_by) == ("stop", stop)
    assert cut.tokens == whole.tokens[: len(cut.tokens)]
    assert beside.tokens == whole.tokens


def test_what_was_submitted_is_not_mixed_up_with_a_list():
    engine = engine_of("with kernels")
    (answer, _) = engine.submit(GOOD[0])
    with pytest.raises(InputError, match="the engine is answering what was submitted"):
        engine.generate(GOOD)
    assert engine.holds(answer)
    finished(engine)
    engine.generate(GOOD)
