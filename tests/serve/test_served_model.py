"""A conversation's tokens: a short one's at once, a long one's while others are answered."""

import asyncio
import importlib.util
import threading

import pytest

if importlib.util.find_spec("fastapi") is None:
    pytest.skip("fastapi is not installed", allow_module_level=True)

from clearseek.serve.served_model import ServedModel


class Tokenizer:
    """Says which thread asks it."""

    def encode_chat(self, messages, **variables):
        return [threading.get_ident()]


@pytest.mark.parametrize(
    ("messages", "variables", "is_short"),
    [
        ([{"role": "user", "content": "a" * 2000}], {}, True),
        ([{"role": "user", "content": "a" * 2100}], {}, False),
        ([{"role": "user", "content": "a" * 300}] * 10, {}, False),
        ([{"role": "user", "content": [{"type": "text", "text": "a" * 3000}]}], {}, False),
        ([{"role": "user", "content": "a"}], {"tools": [{"description": "a" * 3000}]}, False),
    ],
    ids=["short", "long", "many turns", "parts", "tools"],
)
def test_a_long_conversation_becomes_tokens_in_a_thread(messages, variables, is_short):
    model = ServedModel("m", Tokenizer(), None, 100, {})
    (thread,) = asyncio.run(model.encode(messages, **variables))
    assert (thread == threading.get_ident()) == is_short
