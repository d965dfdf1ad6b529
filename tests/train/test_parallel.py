"""Two gloo ranks against one process, and what ranks owe one another: order, errors, bounded waits."""

import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from clearseek.config.errors import InputError, RunError
from clearseek.train import parallel
from clearseek.train.learner import Learner
from clearseek.train.parallel import (
    all_max,
    all_sum,
    gather_shares,
    gathered,
    is_spread,
    joined_world,
    on_first,
    own_device,
    waiting_for,
    whole_tensors,
    world,
)
from clearseek.train.state import ResumePoint, latest_resume_point, save_resume_point
from tests.model.tiny import some_tokens
from tests.train.ranks import on_ranks
from tests.train.small import CPU, learner_of, relative_difference, some_rows, step_on

LIMIT = 1e-6


# Gradients


def gradient_on_ranks(name, rows, size):
    learner = learner_of(name)
    assert is_spread(learner.model) == (world().size > 1)
    gradients, result = step_on(learner, rows, size)
    return gradients, result, whole_tensors(learner.model.state_dict(), everywhere=True)


@pytest.mark.parametrize(
    ("name", "num_rows"),
    [("deepseek_v3 mtp", 7), ("deepseek_v3 mtp", 1), ("deepseek_v3 many experts", 7), ("qwen3", 7)],
)
def test_two_ranks_compute_the_gradient_of_one_process(tmp_path, name, num_rows):
    """T1 over ranks: to 1e-6, in uneven shares or with a rank that has no row; then the same step follows."""
    rows = some_rows(num_rows)
    expected, alone, weights = gradient_on_ranks(name, rows, 7)
    for gradients, result, after in on_ranks(2, gradient_on_ranks, tmp_path, name, rows, 2):
        assert relative_difference(gradients, expected) < LIMIT
        assert relative_difference(after, weights) < LIMIT
        assert result.loss == pytest.approx(alone.loss, rel=1e-6)
        assert result.mtp_loss == pytest.approx(alone.mtp_loss, rel=1e-6)
        assert result.balance_loss == pytest.approx(alone.balance_loss, rel=1e-6)
        assert result.grad_norm == pytest.approx(alone.grad_norm, rel=1e-6)
        assert result.expert_load_max == alone.expert_load_max


def test_three_ranks_too(tmp_path):
    rows = some_rows(8)
    expected, _, _ = gradient_on_ranks("deepseek_v3 mtp", rows, 8)
    for gradients, _, _ in on_ranks(3, gradient_on_ranks, tmp_path, "deepseek_v3 mtp", rows, 2):
        assert relative_difference(gradients, expected) < LIMIT


def step_with_given_gradients(name):
    """Weights after two steps whose gradients are exactly the same numbers on any number of ranks."""
    learner = learner_of(name, "muon")
    for step in range(2):
        generator = torch.Generator().manual_seed(step)
        for parameter in learner.optimizer.parameters:
            full = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.zeros_like(parameter, requires_grad=False)
            parallel.copy_into(parameter.grad, full)
        learner.optimizer.step(1.0)
    trained = whole_tensors(learner.model.state_dict(), everywhere=True)
    momentum = whole_tensors(learner.optimizer.momentum, everywhere=True)
    return {name: trained[name] for name in momentum}, momentum, trained


@pytest.mark.parametrize("name", ["deepseek_v3 mtp", "qwen3"])
def test_muon_orthogonalises_whole_matrices_whatever_the_number_of_ranks(tmp_path, name):
    """Each rank's rows alone would give another matrix altogether."""
    matrices, momentum, trained = step_with_given_gradients(name)
    for found, buffers, everything in on_ranks(2, step_with_given_gradients, tmp_path, name):
        for key, tensor in matrices.items():
            assert torch.equal(found[key], tensor), key
            assert torch.equal(buffers[key], momentum[key]), key
        assert relative_difference(everything, trained) < LIMIT


def train(name, optimizer, steps, folder=None, save_at=None):
    """Some steps, from a resume point if there is one; the whole state at the end."""
    learner, first = learner_of(name, optimizer), 0
    point = latest_resume_point(folder) if folder else None
    if point is not None:
        point.restore(learner.model, learner.optimizer)
        first = point.step
    losses = []
    for step in range(first, steps):
        losses.append(step_on(learner, some_rows(5, seed=step), 2)[1])
        if step + 1 == save_at:
            point = ResumePoint("x", step + 1, 0, 0, "")
            save_resume_point(folder, point, learner.model, learner.optimizer)
    tensors = learner.model.state_dict() | learner.optimizer.state()
    return losses, whole_tensors(tensors, everywhere=True)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_two_ranks_resume_to_the_bit(tmp_path, optimizer):
    name, folder = "deepseek_v3 mtp", tmp_path / "points"
    straight = on_ranks(2, train, tmp_path, name, optimizer, 4)
    on_ranks(2, train, tmp_path, name, optimizer, 2, folder, 2)
    resumed = on_ranks(2, train, tmp_path, name, optimizer, 4, folder)
    for (losses, expected), (later, found) in zip(straight, resumed, strict=True):
        assert losses[2:] == later
        for key, tensor in expected.items():
            assert torch.equal(found[key], tensor), key


def test_a_resume_point_fits_any_number_of_ranks(tmp_path):
    name, folder = "deepseek_v3 mtp", tmp_path / "points"
    expected = train(name, "adamw", 3)[1]
    on_ranks(2, train, tmp_path, name, "adamw", 2, folder, 2)
    assert relative_difference(train(name, "adamw", 3, folder)[1], expected) < 1e-5
    on_ranks(3, train, tmp_path, name, "adamw", 2, folder / "three", 2)
    for _, found in on_ranks(2, train, tmp_path, name, "adamw", 3, folder / "three"):
        assert relative_difference(found, expected) < 1e-5


def states_of_gathered():
    learner = learner_of("deepseek_v3 mtp")
    with torch.no_grad():  # a pass without backward leaves the outermost parameters whole
        tokens = some_tokens(learner.model.config, 2, 8)
        through = learner.model(tokens, torch.ones_like(tokens)).states
    copy = gathered(learner.model)
    assert not is_spread(copy)
    return copy.state_dict(), torch.equal(copy(tokens, torch.ones_like(tokens)).states, through)


def test_a_gathered_model_is_whole_on_every_rank(tmp_path):
    """T17: what the engine holds is what is trained, bit for bit."""
    model = learner_of("deepseek_v3 mtp").model
    assert gathered(model) is model
    for state, computes_the_same in on_ranks(2, states_of_gathered, tmp_path):
        assert computes_the_same
        assert state.keys() == model.state_dict().keys()
        for name, tensor in model.state_dict().items():
            assert torch.equal(state[name], tensor), name


# Exchanges


def exchanges():
    here = world()
    mine = [f"thing {i}" for i in here.share(5)]
    order = gather_shares("things", mine)
    sums = all_sum("numbers", torch.tensor([1.0, 2.0**24 + here.rank], dtype=torch.float64)).tolist()
    told = on_first("a number", lambda: 40 + here.rank)
    return order, sums, all_max("a number", float(here.rank)), told, here.largest_share(5)


def test_exchanges_are_in_order_and_exact(tmp_path):
    for order, sums, largest, told, most in on_ranks(2, exchanges, tmp_path):
        assert order == [f"thing {i}" for i in range(5)]
        assert sums == [2, 2.0**25 + 1]
        assert (largest, told, most) == (1, 40, 3)


def test_alone_nothing_is_exchanged():
    assert world() == parallel.World(0, 1)
    assert gather_shares("things", ["a", "b"]) == ["a", "b"]
    assert all_sum("numbers", torch.tensor([3.0])).tolist() == [3]
    assert on_first("a number", lambda: 4) == 4


def failing_first(error):
    def fail():
        raise error

    try:
        on_first("the checkpoint of stage sft", fail)
    except (InputError, RunError, KeyError) as raised:
        return type(raised), str(raised)
    return None


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (InputError("the recipe is wrong"), InputError, "the recipe is wrong"),
        (RunError("disk full"), RunError, "disk full"),
        (KeyError("x"), RunError, "rank 0 failed: the checkpoint of stage sft: 'x'"),
    ],
)
def test_what_fails_on_the_first_rank_fails_on_all(tmp_path, error, kind, message):
    """Nobody waits for a rank that has given up."""
    first, second = on_ranks(2, failing_first, tmp_path, error)
    assert first[0] is type(error)
    assert second == (kind, message)


def wait_for_a_sleeper():
    dist.destroy_process_group()
    meeting = parallel.os.environ["MEETING"]
    rank = int(parallel.os.environ["RANK_OF_TEST"])
    dist.init_process_group("gloo", f"file://{meeting}", timedelta(seconds=1), world_size=2, rank=rank)
    given_up = Path(meeting).with_name("given-up")
    if rank == 0:
        deadline = time.monotonic() + 30
        while not given_up.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        return "slept until it was given up" if given_up.exists() else "slept"
    with pytest.raises(RunError) as raised:
        on_first("the resume point of sft, step 100", lambda: None)
    given_up.touch()
    return str(raised.value)


def sleeper_of_rank(folder):
    parallel.os.environ |= {"MEETING": f"{folder}/again", "RANK_OF_TEST": str(dist.get_rank())}
    return wait_for_a_sleeper()


def test_a_wait_ends_and_says_what_it_was_for(tmp_path):
    """T18, law 7."""
    first, message = on_ranks(2, sleeper_of_rank, tmp_path, tmp_path)
    assert first == "slept until it was given up"
    assert message.startswith("rank 1 of 2 gave up waiting for rank 0: the resume point of sft, step 100: ")
    assert "\n" not in message


def test_other_errors_inside_a_wait_are_left_alone(monkeypatch):
    monkeypatch.setattr(parallel, "world", lambda: parallel.World(1, 2))
    with pytest.raises(RuntimeError, match="mat1 and mat2"), waiting_for("gradients"):
        torch.zeros(2, 3) @ torch.zeros(2, 3)
    with pytest.raises(RunError, match=r"^nan$"), waiting_for("gradients"):
        raise RunError("nan")


# Joining


def test_half_of_torchrun_s_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    message = "WORLD_SIZE is 2 but RANK is not set; start with torchrun"
    with pytest.raises(InputError, match=message), joined_world(CPU):
        pass


def test_others_that_never_come_are_an_error(monkeypatch):
    settings = {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match="rank 0 of 2 did not meet the others"), joined_world(CPU, 0.5):
        pass
    assert world().size == 1


def test_a_process_alone_joins_nothing(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined_world(torch.device("cpu")) as here:
        assert here == parallel.World(0, 1)


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    cpu, any_gpu, second = torch.device("cpu"), torch.device("cuda"), torch.device("cuda", 1)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert own_device(any_gpu) == any_gpu
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert own_device(any_gpu) == second
    assert own_device(cpu) == cpu
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(InputError, match="2 processes but 1 GPUs"):
        own_device(any_gpu)


def test_a_learner_alone_shards_nothing():
    assert isinstance(learner_of("qwen3"), Learner)
    assert not is_spread(learner_of("qwen3").model)
