"""Tiny products: a second thread would only get in the way."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Whatever the machine has."""
    torch.set_num_threads(1)
