"""Settings that can't be meant: one line that names the setting, its value, and what is right."""

import dataclasses

import pytest

from clearseek.config.errors import InputError
from clearseek.engine import constraint
from clearseek.engine.request import Request, Sampling
from clearseek.engine.sampling_settings import check_request

VOCABULARY = 100
WRONG = [
    ({"temperature": -0.1}, "temperature is -0.1; it has to be 0"),
    ({"temperature": 1e-9}, "at least 0.0001"),
    ({"temperature": float("nan")}, "temperature is nan"),
    ({"temperature": float("inf")}, "temperature is inf"),
    ({"temperature": "1"}, "temperature is '1'"),
    ({"temperature": True}, "temperature is True"),
    ({"top_p": 0.0}, "top_p is 0.0; it has to be above 0 and at most 1"),
    ({"top_p": 1.1}, "top_p is 1.1"),
    ({"min_p": -0.1}, "min_p is -0.1; it has to be from 0 to 1"),
    ({"top_k": -1}, "top_k is -1; it has to be a whole number of at least 0; 0 keeps all"),
    ({"top_k": 2.5}, "top_k is 2.5"),
    ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; it has to be above 0"),
    ({"frequency_penalty": 2.5}, "frequency_penalty is 2.5; it has to be from -2 to 2"),
    ({"presence_penalty": -3}, "presence_penalty is -3"),
    ({"logit_bias": {100: 1.0}}, "logit_bias names token 100; token ids are whole numbers from 0 to 99"),
    ({"logit_bias": {"7": 1.0}}, "logit_bias names token '7'"),
    ({"logit_bias": {7: 101}}, r"logit_bias\[7\] is 101; it has to be from -100 to 100"),
    ({"logit_bias": [7]}, r"logit_bias is \[7\]; it has to be a mapping"),
    ({"stop": "end"}, "stop is 'end'; it has to be a list of texts"),
    ({"stop": ("",)}, "stop is ''; it has to be texts of 1 to 512 characters"),
    ({"stop": ("x" * 513,)}, "stop is 'x.*…; it has to be"),
    ({"stop": ("x",) * 33}, "stop lists 33 texts; there may be at most 32"),
    ({"stop_ids": (-1,)}, "stop_ids names token -1"),
    ({"stop_ids": (1,) * 129}, "stop_ids lists 129 tokens"),
    ({"max_tokens": 0}, "max_tokens is 0; it has to be a whole number of at least 1"),
    (
        {"top_log_probs": 129},
        "top_log_probs is 129; it has to be a whole number of at least 0 and at most 128",
    ),
    ({"prompt_log_probs": -1}, "prompt_log_probs is -1"),
    ({"routed_experts": 1}, "routed_experts is 1; it has to be True or False"),
    ({"thinking_budget": -1}, "thinking_budget is -1"),
    ({"thinking_budget": 96}, "thinking_budget is 96; it has to be less than max_tokens, which is 96"),
    ({"constraint": "{}"}, "constraint is '{}'; it has to be made by json_schema"),
    ({"constraint": constraint.regex("a"), "ignore_eos": True}, "ignore_eos and constraint contradict"),
    (
        {"constraint": constraint.regex("a", thinks_first=False), "thinking_budget": 3},
        "thinking_budget and a constraint with thinks_first=False contradict",
    ),
]
WRONG_REQUESTS = [
    ({"num_samples": 0}, r"num_samples \(n\) is 0; it has to be a whole number of at least 1"),
    ({"num_samples": 4, "best_of": 3}, "best_of is 3; it has to be at least n, which is 4"),
    ({"best_of": 3, "sampling": Sampling(temperature=0)}, "best_of is 3; .* every draw would be the same"),
    ({"deadline_seconds": 0}, "deadline_seconds is 0; it has to be a number of seconds above 0, or None"),
    ({"deadline_seconds": float("inf")}, "deadline_seconds is inf"),
    ({"deadline_seconds": "3"}, "deadline_seconds is '3'"),
    ({"prompt": (1, 100)}, "the prompt names token 100; token ids are whole numbers from 0 to 99"),
]


@pytest.mark.parametrize(("own", "said"), WRONG, ids=lambda value: str(value)[:40])
def test_a_setting_that_is_wrong_is_named(own, said):
    with pytest.raises(InputError, match=said) as caught:
        check_request(Request((1,), 0, sampling=Sampling(**own)), VOCABULARY)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("own", "said"), WRONG_REQUESTS, ids=str)
def test_a_request_that_is_wrong_is_named(own, said):
    with pytest.raises(InputError, match=said):
        check_request(dataclasses.replace(Request((1,), 0), **own), VOCABULARY)


def test_the_ends_of_every_range_are_right():
    lowest = Sampling(0.0, 1e-9, 1, 0, 0.0, 0.01, -2, -2, {0: -100}, ("a",), (0,), True, 0, 0, 0)
    for sampling in (
        Sampling(),
        dataclasses.replace(lowest, max_tokens=2),
        Sampling(
            1e-4, 1.0, 10**9, 10**9, 1.0, 100, 2, 2, {99: 100}, ("x" * 512,) * 32, (99,), False, 128, 128, 5
        ),
    ):
        check_request(Request((0, 99), 0, 2, sampling, 2), VOCABULARY)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: constraint.json_schema({"a": object()}), "can't be written as JSON"),
        (lambda: constraint.json_schema({"maximum": float("nan")}), "can't be written as JSON"),
        (lambda: constraint.regex(""), "a regex must be a text that isn't empty"),
        (lambda: constraint.lark("x" * 70_000), "the lark has 70000 characters; it may have at most 65536"),
        (lambda: constraint.choice([]), "a choice needs a list of texts"),
        (lambda: constraint.choice(["a", ""]), "a choice needs a list of texts"),
        (lambda: constraint.choice([f"word {i}" for i in range(10_000)]), "it may have at most 65536"),
    ],
)
def test_a_constraint_that_is_wrong_is_named(make, said):
    with pytest.raises(InputError, match=said):
        make()
