"""Resume points: whole or not there, the newest first, and never of other data."""

import errno
import os

import pytest
import torch

from clearseek.config.errors import RunError
from clearseek.train import state
from clearseek.train.state import ResumePoint, latest_resume_point, save_resume_point
from tests.train.small import learner_of, some_rows, step_on

FINGERPRINT = "a" * 64


def point_at(step):
    return ResumePoint("sft", step, 10 + step, 3, FINGERPRINT, {"tokens": 0.1 * step}, {"retired": ["b"]})


@pytest.fixture
def learner():
    learner = learner_of("deepseek_v3 mtp", "muon")
    step_on(learner, some_rows(), 4)
    return learner


def save(folder, learner, *steps, others=None):
    for step in steps:
        save_resume_point(folder, point_at(step), learner.model, learner.optimizer, others)


def test_no_folder_is_no_resume_point(tmp_path):
    assert latest_resume_point(tmp_path / "none") is None


def test_training_goes_on_to_the_bit(tmp_path, learner):
    """Law 3 for one learner: weights, momentum, moments, and the routers' bias."""
    save(tmp_path, learner, 7, others={"reference.weight": torch.arange(3.0)})
    fresh = learner_of("deepseek_v3 mtp", "muon")
    point = latest_resume_point(tmp_path)
    others = point.restore(fresh.model, fresh.optimizer)
    assert torch.equal(others["reference.weight"], torch.arange(3.0))
    assert (point.step, point.ledger_lines, point.totals) == (7, 17, {"tokens": 0.7000000000000001})
    assert point.extra == {"retired": ["b"]}
    results = [step_on(one, some_rows(seed=5), 4)[1] for one in (learner, fresh)]
    assert results[0] == results[1]
    for name, tensor in learner.model.state_dict().items():
        assert torch.equal(tensor, fresh.model.state_dict()[name]), name
    for name, tensor in learner.optimizer.state().items():
        assert torch.equal(tensor, fresh.optimizer.state()[name]), name


def test_the_newest_counts_and_old_ones_go(tmp_path, learner):
    save(tmp_path, learner, 100, 200, 1000, 1100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-001000", "step-001100"]
    assert latest_resume_point(tmp_path).step == 1100


def test_other_data_or_another_stage_is_refused(tmp_path, learner):
    save(tmp_path, learner, 1)
    point = latest_resume_point(tmp_path)
    point.check("sft", FINGERPRINT)
    for stage, fingerprint in (("sft", "b" * 64), ("rl", FINGERPRINT)):
        with pytest.raises(RunError, match=r"made with other data.*another --out"):
            point.check(stage, fingerprint)


@pytest.mark.parametrize("file", ["state.json", "state.safetensors"])
@pytest.mark.parametrize("harm", ["truncated", "missing", "empty"])
def test_a_torn_point_is_named_with_the_one_to_fall_back_on(tmp_path, learner, file, harm):
    save(tmp_path, learner, 1, 2)
    path = tmp_path / "step-000002" / file
    if harm == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2 if harm == "truncated" else 0)
    with pytest.raises(RunError, match=r"step-000002: not a whole resume point.*continue from step-000001"):
        latest_resume_point(tmp_path)


def test_a_torn_first_point_starts_the_stage_over(tmp_path, learner):
    save(tmp_path, learner, 1)
    (tmp_path / "step-000001" / "state.json").write_text("{")
    with pytest.raises(RunError, match="remove it to start the stage over"):
        latest_resume_point(tmp_path)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_loses_no_earlier_point(tmp_path, learner, monkeypatch, number):
    save(tmp_path, learner, 1)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    def refuse(path, tensors):
        path.write_bytes(b"half")
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(state, "save_tensors", refuse)
    with pytest.raises(RunError, match=r"step-000002.*earlier checkpoints are intact"):
        save(tmp_path, learner, 2)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert latest_resume_point(tmp_path).step == 1


def test_what_a_kill_left_half_written_is_cleared_away(tmp_path, learner):
    (tmp_path / ".step-000001.partial").mkdir()
    (tmp_path / ".step-000001.partial" / "state.json").write_text("{")
    save(tmp_path, learner, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000001"]
