"""Constrained output: whatever is drawn obeys, thoughts are free, and a bad grammar is its own request's error."""

import json
import re
import sys
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clearseek.config.errors import InputError
from clearseek.engine import constraint
from clearseek.engine.constraint import Constraint
from clearseek.engine.request import Request, Sampling
from clearseek.engine.row import Row, RowMaker
from clearseek.engine.row_sampler import draw
from tests.engine.scripted import small_tokenizer

TOKENIZER = small_tokenizer()
END, THINK_END, THINK_START = TOKENIZER.eos_id, TOKENIZER.think_end_id, TOKENIZER.think_start_id
SIZE = TOKENIZER.vocab_size + 5  # a model's embeddings are often padded
OPENED = tuple(TOKENIZER.encode_chat([{"role": "user", "content": "12 + 5?"}]))
CLOSED = tuple(TOKENIZER.encode_chat([{"role": "user", "content": "12 + 5?"}], thinking=False))
MAKER = RowMaker(SIZE, {END}, TOKENIZER)
PERSON = {
    "type": "object",
    "properties": {"name": {"enum": ["Kim", "Li"]}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def test_a_missing_library_is_one_line_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(InputError, match=re.escape("pip install 'clearseek[constraints]'")):
        RowMaker(SIZE, {END}, TOKENIZER).check(
            Request((1,), 0, sampling=Sampling(constraint=constraint.regex("a")))
        )


@pytest.fixture
def _library():
    pytest.importorskip("llguidance")


pytestmark_library = pytest.mark.usefixtures("_library")


def started(wanted: Constraint, prompt: tuple[int, ...] = CLOSED, **own) -> Row:
    request = Request(prompt, 0, sampling=Sampling(constraint=wanted, **own))
    MAKER.check(request)
    return MAKER.start(request)


def say(row: Row, seed: int, most: int = 500) -> list[int]:
    """Tokens drawn from random scores, which know nothing of the constraint, until the end token."""
    generator, said = torch.Generator().manual_seed(seed), []
    while len(said) < most and END not in said:
        scores = torch.randn(1, SIZE, generator=generator) * 3
        number = torch.randint(2**24, (1,), generator=generator) * 2.0**-24
        said.append(int(draw([row], scores, number).tokens[0]))
        row.note(said[-1])
        assert row.error is None
    return said


def text_of(said: list[int]) -> str:
    assert said[-1] == END
    return TOKENIZER.decode(said[:-1])


@pytestmark_library
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_random_scores_write_what_the_schema_describes(seed, fast_forward):
    text = text_of(say(started(constraint.json_schema(PERSON, fast_forward=fast_forward)), seed))
    value = json.loads(text)
    assert set(value) == {"name", "age"}
    assert value["name"] in ("Kim", "Li")
    assert 0 <= value["age"] <= 99


@pytestmark_library
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_random_scores_write_what_a_regex_matches(seed):
    pattern = r"(답|answer): -?[0-9]{1,4}(\.5)?"
    assert re.fullmatch(pattern, text_of(say(started(constraint.regex(pattern)), seed)))


@pytestmark_library
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_random_scores_write_what_a_grammar_derives(seed):
    grammar = 'start: sum\nsum: NUMBER ("+" NUMBER)~1..3\nNUMBER: /[1-9][0-9]?/'
    assert re.fullmatch(r"[1-9]\d?(\+[1-9]\d?){1,3}", text_of(say(started(constraint.lark(grammar)), seed)))


@pytestmark_library
def test_every_choice_can_be_written_whatever_is_in_it():
    texts = ["yes", "yes, but", 'a "quoted\\" one', "한국어\n둘째 줄", "答案", "a|b(c)*", "\x01"]
    written = {text_of(say(started(constraint.choice(texts)), seed)) for seed in range(80)}
    assert written == set(texts)


@pytestmark_library
def test_a_thousand_choices_are_no_explosion():
    texts = [f"word {i}" for i in range(1000)]
    assert text_of(say(started(constraint.choice(texts)), 1)) in texts


@pytestmark_library
def test_any_json_object_is_one():
    finished = [
        said for seed in range(4) if (said := say(started(constraint.json_object()), seed, 400))[-1] == END
    ]
    assert finished
    for said in finished:
        assert isinstance(json.loads(text_of(said)), dict)


@pytestmark_library
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 8))
def test_a_thought_is_free_and_what_follows_it_obeys(seed, budget):
    row = started(constraint.choice(["17", "18"]), OPENED, thinking_budget=budget)
    said = say(row, seed)
    closed = said.index(THINK_END)
    assert closed <= budget
    assert text_of(said[closed + 1 :]) in ("17", "18")
    assert row.forced_at == ([budget] if closed == budget and row.forced_at else [])


@pytestmark_library
def test_a_thought_may_say_anything_but_the_end():
    row = started(constraint.choice(["17"]), OPENED)
    allowed = row.allowed()
    assert not allowed[END]
    assert allowed.sum() == SIZE - 1


@pytestmark_library
def test_a_model_that_opens_its_thought_itself_may_do_so_at_once_and_only_then():
    row = started(constraint.choice(["17"]), CLOSED[:-1])
    assert row.allowed()[THINK_START]
    row.note(THINK_START)
    assert row.allowed().sum() == SIZE - 1
    row.note(THINK_END)
    assert not row.allowed()[THINK_START]
    other = started(constraint.choice(["17"], thinks_first=False), CLOSED[:-1])
    assert not other.allowed()[THINK_START]


@pytestmark_library
def test_log_probs_are_the_models_and_processed_ones_the_constraints():
    row = started(constraint.choice(["1", "2"]))
    scores = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(0))
    drawn = draw([row], scores, torch.tensor([0.5]))
    one, two = (TOKENIZER.encode_plain(text)[0] for text in ("1", "2"))
    token = int(drawn.tokens[0])
    assert token in (one, two)
    torch.testing.assert_close(drawn.log_probs[0], scores.log_softmax(-1)[0, token])
    torch.testing.assert_close(
        drawn.processed_log_probs[0], scores[0, [one, two]].log_softmax(-1)[[one, two].index(token)]
    )


@pytestmark_library
def test_what_the_grammar_leaves_no_choice_in_is_put_there_and_marked():
    row = started(constraint.choice(["The answer is 17", "The answer is 18"], fast_forward=True))
    forced = row.forced
    assert TOKENIZER.decode(list(forced)).startswith("The answer")
    for token in forced:
        row.note(token)
    assert row.forced_at == list(range(len(forced)))
    assert row.error is None


BAD = [
    (constraint.json_schema('{"type": "foo"}'), "the json_schema can't be used: Invalid type: foo"),
    (constraint.json_schema("{"), "the json_schema can't be used"),
    (constraint.json_schema("[1]"), "the json_schema can't be used: Expecting object schema"),
    (constraint.json_schema("false"), "the json_schema can't be used: Expecting object schema"),
    (constraint.json_schema({"not": {"type": "string"}}), 'Unimplemented keys: \\["not"\\]'),
    (constraint.json_schema({"$ref": "#/nowhere"}), "does not exist"),
    (constraint.json_schema({"$ref": "#"}), "no text satisfies the json_schema"),
    (constraint.json_schema({"type": "integer", "minimum": 5, "maximum": 2}), "Unsatisfiable schema"),
    (constraint.json_schema({"enum": []}), "Unsatisfiable schema"),
    (constraint.regex("(a"), "the regex can't be used: .*unclosed group"),
    (constraint.regex("(?=a)b"), "look-around"),
    (constraint.regex(r"[^\s\S]"), "no text satisfies the regex"),
    (constraint.lark("start: nothing"), "unknown name"),
    (constraint.lark("start: a\na: a 'x'"), "the lark can't be used|no text satisfies the lark"),
    (constraint.lark("%%%"), "the lark can't be used"),
]


@pytestmark_library
@pytest.mark.parametrize(("wanted", "said"), BAD, ids=lambda value: getattr(value, "source", ""))
def test_a_grammar_that_is_malformed_or_unsatisfiable_is_named(wanted, said):
    with pytest.raises(InputError, match=said) as caught:
        started(wanted)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


EXPLODING = [
    constraint.regex("a{1000000}"),
    constraint.regex("((((a{1,50}){1,50}){1,50}){1,50}b)"),
    constraint.lark(
        "start: a\n"
        + "\n".join(f"{chr(97 + i)}: {chr(98 + i)} {chr(98 + i)}" for i in range(20))
        + '\nu: "x"'
    ),
    constraint.lark("start: " + " | ".join(f'"w{i}"' for i in range(5000))),
    constraint.json_schema(
        {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(1500)}}
    ),
    constraint.json_schema('{"items":' * 3000 + "{}" + "}" * 3000),
]


@pytestmark_library
@pytest.mark.parametrize("wanted", EXPLODING, ids=lambda wanted: wanted.source[:30])
def test_a_grammar_that_explodes_is_bounded_and_ends_its_own_row_alone(wanted):
    """Either refused at once, or given up on the way, or followed: never more than the bound on its time."""
    before = time.thread_time()
    beside = started(constraint.choice(["17"]))
    try:
        row = started(wanted)
    except InputError:
        row = None
    for _ in range(20 if row is not None else 0):
        scores = torch.zeros(2, SIZE)
        drawn = draw([row, beside], scores, torch.tensor([0.3, 0.3]))
        row.note(int(drawn.tokens[0]))
        if row.error is not None:
            assert "constraint: " in str(row.error)
            assert np.flatnonzero(row.allowed()).tolist() == [END]
            break
    assert beside.error is None
    assert time.thread_time() - before < 30


@pytestmark_library
def test_time_that_following_takes_is_bounded(monkeypatch):
    monkeypatch.setattr("clearseek.engine.grammar._SECONDS", 0.0)
    row = started(constraint.regex("[a-z]{3}"))
    draw([row], torch.zeros(1, SIZE), torch.tensor([0.5]))
    with pytest.raises(InputError, match="the regex took more than 0 s to follow"):
        raise row.error


@pytestmark_library
def test_samples_of_a_request_follow_one_compiled_grammar_each_for_itself():
    request = Request(CLOSED, 0, 2, Sampling(constraint=constraint.choice(["12", "34"])))
    first, second = MAKER.start(request), MAKER.start(request)
    first.note(TOKENIZER.encode_plain("1")[0])
    assert second.allowed()[TOKENIZER.encode_plain("3")[0]]
    assert not first.allowed()[TOKENIZER.encode_plain("3")[0]]
