"""One tiny model behind a live server, for all that only ask it."""

import pytest
import torch

from clearseek.serve.registry import Registry
from tests.serve.live import live, tiny_served, tiny_tokenizer


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny products: a second thread would only get in the way."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tokenizer():
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def server(tokenizer):
    """Its address."""
    with live(Registry([tiny_served(tokenizer)])) as address:
        yield address
