"""What a stage starts from and what it leaves, as the ledger names it."""

import pytest
import torch

from clearseek.config.load import parse_recipe
from clearseek.config.toml import to_toml
from clearseek.ledger.lines import file_sha256
from clearseek.ledger.log import read
from clearseek.model.checkpoint import load_model, save_state
from clearseek.recipe.run import run_recipe
from clearseek.recipe.stages import find_start
from tests.recipe.bases import make_base


@pytest.fixture
def base(tmp_path):
    """A user's directory that happens to be named as a stage is."""
    return make_base(tmp_path / "models" / "look", ["1 + 1 = 2, one and one is two"] * 9)


def parents(tmp_path, base):
    recipe = parse_recipe({"name": "r", "stages": {"look": {"kind": "eval", "start": str(base)}}}, "r")
    return find_start(recipe, tmp_path / "run", "look", torch.device("cpu")).parents


def test_a_user_s_directory_is_a_path_with_the_hash_of_its_weights(tmp_path, base):
    assert parents(tmp_path, base) == [{"path": "look", "sha256": file_sha256(base / "model.safetensors")}]


def test_weights_in_several_files_are_hashed_too(tmp_path, base):
    whole = parents(tmp_path, base)
    model = load_model(base)
    (base / "model.safetensors").unlink()
    save_state(model.config, model.state_dict(), base, token_ids={}, shard_bytes=20_000)
    assert len(list(base.glob("model-*.safetensors"))) > 1
    (sharded,) = parents(tmp_path, base)
    assert len(sharded["sha256"]) == 64
    assert [sharded] != whole
    model.embedding.weight.data += 1
    save_state(model.config, model.state_dict(), base, token_ids={}, shard_bytes=20_000)
    assert parents(tmp_path, base) != [sharded]


def test_weights_left_in_several_files_are_all_named(tmp_path, base, monkeypatch):
    monkeypatch.setitem(save_state.__kwdefaults__, "shard_bytes", 20_000)
    rows = [{"problems": {"tasks": ["digits"], "levels": [1]}, "count": 4}]
    stage = {"kind": "sft", "start": str(base), "data": rows, "evaluate": False, "sequence_length": 256}
    path = tmp_path / "r.toml"
    path.write_text(to_toml({"name": "r", "dtype": "float32", "compile": False, "stages": {"s": stage}}))
    run = run_recipe(str(path), out=tmp_path / "run", device="cpu").run_dir
    (finished,) = [record for record in read(run / "ledger.jsonl") if record["kind"] == "stage_finished"]
    left = sorted(file.name for file in (run / "checkpoints" / "s").glob("model-*.safetensors"))
    assert len(left) > 1
    assert [output["name"] for output in finished["outputs"]] == left
