"""The engine's benchmark: one object with every figure, its targets, and the reason where a peer is not there."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import engine
from benchmarks.engine_bench import exactness, workers
from benchmarks.engine_bench.exactness import REQUESTS, Beside, compare_in_turns
from benchmarks.engine_bench.installed import installed_bytes
from benchmarks.engine_bench.measure import OURS, Turns
from benchmarks.engine_bench.targets import DENSE, LATENT, target_rows
from benchmarks.engine_bench.workers import ENGINES, Peer, Worker, WorkerError
from clearseek.config.model import ModelConfig
from clearseek.engine.bench import limits
from clearseek.engine.bench.shapes import PROMPT_WORKLOADS, SHAPES, Shape
from clearseek.engine.bench.workloads import FIRST_PLAIN_ID, WORKLOADS, Workload
from tests.model.tiny import tiny_model

SMALL = ModelConfig(
    family="llama", vocab_size=300, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64
)
COUNTING = f"""
import sys, time
sys.path.insert(0, {str(workers.PEERS)!r})
from lines import Unsupported, serve
class Counts:
    def load(self, path, format_name):
        if format_name == "fp32": raise Unsupported("no fp32")
        time.sleep(0.3)
        return {{"version": "1"}}
    def generate(self, prompts, max_tokens, samples, temperature, shares):
        return [list(range(max_tokens)) for _ in range(len(prompts) * samples)], None
serve(Counts())
"""
EXPERTS = SHAPES["tiny-1m-latent-moe"].config


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A shape of milliseconds, and a machine that is looked at for as long."""
    cores, threads = os.sched_getaffinity(0), torch.get_num_threads()
    monkeypatch.setitem(SHAPES, "dense-0.6b", Shape(SMALL, ("one_stream", "rl_group", "cold_start")))
    monkeypatch.setitem(WORKLOADS, "one_stream", Workload(num_prompts=1, prompt_tokens=4, max_tokens=5))
    monkeypatch.setitem(WORKLOADS, "rl_group", Workload(1, 4, 3, samples=2, temperature=1.0))
    monkeypatch.setattr(engine, "DRAM_BYTES", 1 << 20)
    monkeypatch.setattr(limits, "TRIAL_SECONDS", 0.001)
    monkeypatch.setattr(engine, "square_peak", lambda form: 1.0)
    monkeypatch.setattr(engine, "installed_bytes", lambda package: {"torch": 5})
    yield ["--folder", str(tmp_path / "runs"), "--rounds", "1", "--out", str(tmp_path / "engine.json")]
    os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)


def run(capsys, *arguments):
    engine.main(list(arguments))
    return json.loads(capsys.readouterr().out)


def test_ours_alone_is_measured_and_the_absent_peer_says_why(small, capsys, monkeypatch):
    gone = dataclasses.replace(ENGINES["vllm"], python=Path("/nowhere/python"))
    monkeypatch.setitem(ENGINES, "vllm", gone)
    report = run(capsys, *small, "--shapes", "dense-0.6b", "--formats", "fp32", "--peers", "vllm")
    cells = report["results"]["dense-0.6b"]
    ours = cells["fp32"]["workloads"]["one_stream"][OURS]
    assert ours["tokens_per_second"] == pytest.approx(5 / ours["seconds"])
    assert 0 <= ours["log_prob_difference"] < 1e-5
    assert cells["fp32"]["workloads"]["rl_group"][OURS]["tokens_per_second"] > 0
    assert cells["fp32"]["workloads"]["one_stream"]["vllm"] == {"why": "absent: make peers-vllm makes it"}
    assert cells["fp32"]["limits"]["tokens_per_second"] > 0
    assert row(report["targets"], "installed bytes")["value"] == 5
    assert all({"name", "value", "met"} <= set(row) for row in report["targets"])


@pytest.fixture
def counting(monkeypatch, tmp_path):
    """An engine that counts instead of generating, and knows no fp32."""
    monkeypatch.setattr(workers, "PEERS", tmp_path)
    (tmp_path / "counts.py").write_text(COUNTING)
    monkeypatch.setitem(ENGINES, OURS, dataclasses.replace(ENGINES[OURS], script="counts.py"))


def test_a_cold_start_is_longer_than_its_first_token(small, counting, capsys):
    report = run(capsys, *small, "--shapes", "dense-0.6b", "--formats", "bf16", "--peers", "none")
    found = report["results"]["dense-0.6b"]["bf16"]["workloads"]
    assert found["cold_start"][OURS]["seconds"] > 0.3 > found["one_stream"][OURS]["seconds"]


def test_a_format_that_an_engine_refuses_has_its_reason(small, counting, capsys):
    report = run(capsys, *small, "--shapes", "dense-0.6b", "--formats", "fp32", "--peers", "none")
    found = report["results"]["dense-0.6b"]["fp32"]["workloads"]["one_stream"]
    assert found == {OURS: {"why": "Unsupported: no fp32"}}


def test_a_part_measured_later_joins_the_parts_in_the_file(small, counting, capsys):
    part = [*small, "--shapes", "dense-0.6b", "--formats", "bf16", "--peers", "none"]
    first = run(capsys, *part, "--workloads", "one_stream")
    both = run(capsys, *part, "--workloads", "rl_group")
    kept = both["results"]["dense-0.6b"]["bf16"]["workloads"]
    assert kept["one_stream"] == first["results"]["dense-0.6b"]["bf16"]["workloads"]["one_stream"]
    assert "rl_group" in kept


@pytest.mark.parametrize("name", ["shapes", "formats", "workloads", "peers"])
def test_an_unknown_part_is_named_beside_the_known_ones(name, capsys):
    with pytest.raises(SystemExit):
        engine.options([f"--{name}", "nonsense"])
    assert "nonsense is not one of" in capsys.readouterr().err


def test_every_round_has_prompts_that_no_cache_knows():
    workload = Workload(num_prompts=3, prompt_tokens=9, max_tokens=1, shared_tokens=6)
    first, second = (workload.prompts(300, seed) for seed in (0, 1))
    assert first == workload.prompts(300, 0)
    assert not {tuple(ids[:6]) for ids in first} & {tuple(ids[:6]) for ids in second}
    assert len({tuple(ids[:6]) for ids in first}) == 1
    assert len({tuple(ids) for ids in first}) == 3
    assert min(min(ids) for ids in first) >= FIRST_PLAIN_ID


def test_the_first_turn_warms_up_and_slow_engines_stop_early():
    turns = Turns(seconds=[9.0])
    assert turns.wants_more(5.0)
    turns.seconds += [1.0]
    assert not turns.wants_more(5.0)
    assert turns.record(10)["tokens_per_second"] == 10.0


def test_an_engine_that_dies_or_fails_is_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "PEERS", tmp_path)
    (tmp_path / "dies.py").write_text("import sys\nsys.exit('no library')")
    (tmp_path / "fails.py").write_text(
        'import sys\nfor line in sys.stdin: print(\'{"error": "no memory"}\', flush=True)'
    )
    log = tmp_path / "log"
    for script, why in (("dies.py", f"ended; see {log}"), ("fails.py", "no memory")):
        with (
            Worker(Peer(script, Path(sys.executable), "-"), 1, log) as worker,
            pytest.raises(WorkerError, match=why),
        ):
            worker.ask("load", path="-", format_name="fp32")
    assert "no library" in log.read_text()


def test_a_question_that_a_dead_engine_never_read_is_a_reason_too(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "PEERS", tmp_path)
    (tmp_path / "dies.py").write_text("")
    with Worker(Peer("dies.py", Path(sys.executable), "-"), 1, tmp_path / "log") as worker:
        worker.process.wait(20)
        with pytest.raises(WorkerError, match="ended"):
            worker.ask("load", path="-", format_name="fp32")


def test_bytes_per_token_are_those_that_a_token_is_multiplied_with():
    layer = 4 * 32 * 32 + 3 * 32 * 64
    assert limits.bytes_per_token(SMALL, "bf16", 0) == 2 * (2 * layer + 300 * 32)
    assert limits.bytes_per_token(SMALL, "fp32", 10) == 4 * (2 * layer + 300 * 32) + 10 * 2 * 2 * 32 * 4
    assert limits.bytes_per_token(SMALL, "int4", 0) == (2 * layer + 300 * 32) * 17 / 32
    assert limits.step_flops(SMALL) == 2 * (2 * layer + 300 * 32)


def test_of_experts_only_the_chosen_ones_count():
    every = EXPERTS.model_copy(update={"num_experts_per_token": 4})
    expert = 3 * 128 * 64
    assert limits.step_flops(every) - limits.step_flops(EXPERTS) == 2 * 2 * 3 * expert
    assert (
        limits.bytes_per_token(every, "bf16", 0) - limits.bytes_per_token(EXPERTS, "bf16", 0)
        == 2 * 2 * 3 * expert
    )


def test_what_is_installed_counts_the_needs_of_needs():
    found = installed_bytes("rich")
    assert {"markdown-it-py", "mdurl", "pygments"} == set(found)
    assert found["pygments"] > 1e6


def records(speeds, **more):
    return {name: {"tokens_per_second": speed, **more} for name, speed in speeds.items()}


def row(rows, beginning):
    (found,) = (one for one in rows if one["name"].startswith(beginning))
    return found


def test_a_target_takes_the_worst_and_is_met_only_where_all_was_measured():
    speeds = {OURS: 30.0, "llama.cpp": 20.0}
    results = {
        shape: {form: {"workloads": {"one_stream": records(speeds)}} for form in ("bf16", "int8")}
        for shape in DENSE
    }
    name = "dense ÷ llama.cpp, one stream, bf16"
    assert row(target_rows(results, {}), name)["value"] == 1.5
    assert row(target_rows(results, {}), name)["met"]
    results["dense-0.1b"]["int8"]["workloads"]["one_stream"] = records(speeds | {OURS: 10.0})
    assert row(target_rows(results, {}), name)["value"] == 0.5
    assert not row(target_rows(results, {}), name)["met"]
    del results["dense-0.1b"]["int8"]
    assert row(target_rows(results, {}), name)["value"] == 1.5
    assert not row(target_rows(results, {}), name)["met"]
    assert row(target_rows(results, {}), name)["not_measured"] == 1


def test_a_peer_that_is_not_there_leaves_the_best_peer_unknown_but_one_that_fails_does_not():
    cell = records({OURS: 30.0, "llama.cpp": 10.0, "vllm": 5.0, "transformers": 4.0})
    results = {"dense-0.6b": {"bf16": {"workloads": {"streams_16": cell}}}}
    cell["transformers-cb"] = {"why": "absent: make peers makes it"}
    name = "dense ÷ the best peer, 16 streams"
    assert row(target_rows(results, {}), name)["value"] is None
    cell["transformers-cb"] = {"why": "ValueError: no such attention"}
    assert row(target_rows(results, {}), name)["value"] == 3.0


def test_what_no_peer_can_do_is_no_part_of_a_target():
    cell = records({OURS: 30.0}) | {"vllm": {"why": "RuntimeError: wants bf16"}}
    works = dict.fromkeys(PROMPT_WORKLOADS, cell)
    name = "latent+MoE ÷ vllm"
    assert row(target_rows({LATENT: {"fp32": {"workloads": works}}}, {}), name)["not_measured"] == 5
    other = {work: records({OURS: 30.0, "vllm": 10.0}) for work in PROMPT_WORKLOADS}
    both = {LATENT: {"fp32": {"workloads": works}, "bf16": {"workloads": other}}}
    assert row(target_rows(both, {}), name) == {
        "name": "latent+MoE ÷ vllm, least of all workloads",
        "value": 3.0,
        "met": True,
        "bound": 3.0,
    }


def test_the_trainers_log_probabilities_are_a_target():
    cell = {"workloads": {"one_stream": records({OURS: 1.0}, log_prob_difference=2e-5)}}
    found = row(target_rows({LATENT: {"fp32": cell}}, {}), "max |engine")
    assert found["value"] == 2e-5
    assert not found["met"]


@pytest.fixture
def short(monkeypatch):
    """Batches of four, and one shape of milliseconds that counts as tiny."""
    monkeypatch.setattr(exactness, "BATCH", 4)
    monkeypatch.setattr(exactness, "SHARED_TOKENS", 70)
    monkeypatch.setattr(engine, "TINY", ("small",))
    monkeypatch.setitem(SHAPES, "small", Shape(SMALL, ()))


def test_requests_are_compared_alone_and_among_others(short, small, capsys, monkeypatch):
    arguments = [
        *small,
        "--peers",
        "none",
        "--workloads",
        "exact",
        "--formats",
        "fp32",
        "--exact-requests",
        "7",
    ]
    monkeypatch.setattr(engine, "options", with_small(engine.options))
    report = run(capsys, *arguments)
    assert report["exact"]["requests"] == 8
    assert report["exact"]["numbers"] > 8
    found = row(report["targets"], "exact mode")
    assert (
        found["value"] == report["exact"]["differing"] == report["exact"]["models"]["small fp32"]["differing"]
    )
    assert found["not_measured"] == REQUESTS - 8


def with_small(options):
    """`small` is a shape that no option of the command names."""

    def chosen(arguments):
        found = options(arguments)
        found.shapes = ("small",)
        return found

    return chosen


def test_a_difference_between_alone_and_among_others_is_counted(short):
    model, other = (tiny_model(SMALL, seed, std=0.1) for seed in (0, 1))
    beside = Beside(model, "fp32")
    beside.alone = Beside(other, "fp32").alone
    assert compare_in_turns({"one": beside}, 4)["one"].differing > 0


def test_exactness_is_a_target_that_fewer_requests_do_not_meet():
    def found(exact):
        return row(target_rows({}, {}, exact), "exact mode")

    assert found({"requests": REQUESTS, "differing": 0})["met"]
    assert not found({"requests": REQUESTS, "differing": 1})["met"]
    assert not found({"requests": REQUESTS - 1, "differing": 0})["met"]
    assert found({"requests": REQUESTS - 1, "differing": 0})["not_measured"] == 1
    assert found(None)["value"] is None
    assert not found(None)["met"]
