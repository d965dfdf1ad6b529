"""One tiny model behind a live server, for all that only ask it."""

import pytest
import torch

from clearseek.serve.registry import Registry
from tests.serve.hermes import hermes_of
from tests.serve.live import live, tiny_served, tiny_tokenizer
from tests.serve.page import Visit, served
from tests.serve.scripted import scripted_model as make_scripted


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny products: a second thread would only get in the way."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def hermes(tokenizer):
    return hermes_of(tokenizer)


@pytest.fixture(scope="session")
def server(tokenizer):
    """Its address."""
    with live(Registry([tiny_served(tokenizer)])) as address:
        yield address


@pytest.fixture
def scripted_model(tokenizer):
    """A model that thinks "12 + 5 = 17" and answers, and what it was asked."""
    model = make_scripted(tokenizer, "12 + 5 = 17</think>17입니다.")
    return model, model.service.asked


@pytest.fixture
def scripted(scripted_model):
    """Its server's address."""
    with live(Registry([scripted_model[0]])) as address:
        yield address


@pytest.fixture
def visit(browser, model, tmp_path):
    """The page of a server that answers by the test's own `model` and keeps its chats."""
    with served(model, history=tmp_path) as address, Visit(browser, address) as visit:
        yield visit
