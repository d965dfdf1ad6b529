"""One thread, for products are tiny, and a small base as it is published."""

import pytest
import torch

import clearseek
from clearseek.text.tokenizer import Tokenizer
from tests.engine.published_base import PHRASES, save


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Whatever the machine has."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(PHRASES, 400)


@pytest.fixture(scope="module")
def base(tmp_path_factory, tokenizer):
    directory = tmp_path_factory.mktemp("base")
    save(directory, tokenizer)
    return directory


@pytest.fixture(scope="module")
def model(base):
    return clearseek.load(base)
