"""A sharded checkpoint loads, mapped or copied, within 1.1 times the model's bytes: one tensor at a time."""

import json
import subprocess
import sys

import pytest

from benchmarks import loading
from clearseek.model.checkpoint import save_state
from clearseek.model.decoder import Decoder


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    shape = loading.SHAPE.model_copy(update={"num_layers": 4})
    model = Decoder(shape).bfloat16()
    save_state(shape, model.state_dict(), folder, token_ids={}, shard_bytes=100_000_000)
    assert len(list(folder.glob("*.safetensors"))) > 3
    return folder


@pytest.mark.parametrize("options", [[], ["--copied"], ["--dtype", "float32"]])
def test_the_peak_is_the_model_in_its_target_dtype(directory, options):
    command = [sys.executable, loading.__file__, "--load", str(directory), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    assert json.loads(done.stdout)["peak_memory_ratio"] <= 1.1
