"""The engine's speed on this machine: figures that belong together, and reasons where there is none."""

import json

import pytest
import torch

from clearseek.cli.main import main
from clearseek.config.errors import InputError, RunError
from clearseek.config.model import ModelConfig
from clearseek.engine.bench import limits, speed
from clearseek.engine.bench.exact import exact_price
from clearseek.engine.bench.peers import ENVIRONMENTS, bench_peers, installed_peers
from clearseek.engine.bench.shapes import Shape
from clearseek.engine.bench.workloads import WORKLOADS
from clearseek.model.kernels.library import why_not
from tests.model.kernel_inputs import lane_sized
from tests.model.tiny import GROUPED, tiny_model

SMALL = ModelConfig(family="llama", **GROUPED | {"hidden_size": 64, "intermediate_size": 96})


@pytest.fixture
def small(monkeypatch):
    """One shape of milliseconds, and a machine that is looked at for as long."""
    monkeypatch.setattr(speed, "STANDING", ("small",))
    monkeypatch.setitem(speed.SHAPES, "small", Shape(SMALL, ()))
    monkeypatch.setattr(limits, "TRIAL_SECONDS", 0.001)
    monkeypatch.setattr(speed, "DRAM_BYTES", 1 << 20)
    monkeypatch.setattr(speed, "square_peak", lambda form: 1e9)
    monkeypatch.setattr(speed, "_TURN_SECONDS", 0.001)


def test_figures_of_a_format_belong_together(small):
    cell = speed.bench_engine(None, ["fp32"])["models"]["small"]["fp32"]
    assert cell["bytes_per_token"] >= limits.bytes_per_token(SMALL, "fp32", 16)
    assert cell["bytes_per_second"] == pytest.approx(cell["bytes_per_token"] * cell["one_stream"])
    assert cell["share_of_limit"] == pytest.approx(cell["bytes_per_second"] / cell["limit_bytes_per_second"])
    assert min(cell["streams_16"], cell["prefill"], cell["seconds_to_first_token"]) > 0


def test_every_format_of_the_kernels_is_measured(small):
    if why_not():
        pytest.skip(why_not())
    cells = speed.bench_engine(None)["models"]["small"]
    assert list(cells) == ["fp32", "bf16", "int8", "int4"]
    assert all(cell["one_stream"] > 0 and cell["plain"] is None for cell in cells.values())


def test_what_can_t_be_kept_so_says_why():
    model = tiny_model(ModelConfig(family="llama", **GROUPED | {"hidden_size": 48}))
    assert "can't be kept in int8 here" in speed.measure_speed(model, "int8")["why"]


def test_exact_mode_has_a_price_where_latents_are_attended_to():
    if why_not():
        pytest.skip(why_not())
    model = lane_sized("deepseek_v3", max_position_embeddings=512)
    assert -0.9 < exact_price(model, 64) < 10
    assert not any(layer.attention.absorbs for layer in model.layers)
    assert exact_price(lane_sized("qwen3"), 64) is None


def test_a_format_that_time_left_no_room_for_says_so(small, monkeypatch):
    cells = speed.bench_engine(None, ["fp32", "bf16"], seconds=0)["models"]["small"]
    assert cells == {"fp32": {"why": speed.LEFT_OUT}, "bf16": {"why": speed.LEFT_OUT}}


def test_work_fits_the_context():
    config = SMALL.model_copy(update={"max_position_embeddings": 40})
    work = speed.fitting(WORKLOADS["prefill_512"], config)
    assert (work.prompt_tokens, work.max_tokens) == (20, 1)
    work = speed.fitting(WORKLOADS["one_stream"], config)
    assert (work.prompt_tokens, work.max_tokens) == (16, 24)


def test_the_command_prints_a_table_and_json(small, capsys):
    assert main(["bench", "engine", "--formats", "fp32"]) == 0
    said = capsys.readouterr().out
    assert "memory is read at" in said
    assert "small fp32" in said
    assert main(["bench", "engine", "--formats", "fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"]["small"]["fp32"]["one_stream"] > 0


def test_the_command_measures_a_model(small, tmp_path, capsys):
    from tests.engine.test_session import Tokenizer, save

    save(tmp_path, Tokenizer.train(["12 + 5 = 17"] * 9, 300))
    assert main(["bench", "engine", str(tmp_path), "--formats", "fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][str(tmp_path)]["fp32"]["prefill"] > 0


def test_an_unknown_format_or_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="'int5' is no format that is measured; there are fp32, bf16"):
        speed.bench_engine(None, ["int5"])
    with pytest.raises(InputError, match="is neither a run"):
        speed.bench_engine(str(tmp_path), ["fp32"])


def test_the_machine_is_described(small):
    facts = speed.machine()
    assert facts["read_bytes_per_second"] > 0
    assert facts["threads"] == torch.get_num_threads()


PEERS = """
import json
cell = {"ours": {"tokens_per_second": 2.0}, "theirs": {"why": "absent: make peers makes it"}}
works = {name: cell for name in ("one_stream", "streams_16", "prefill_512")}
print(json.dumps({"results": {"dense-0.1b": {"fp32": {"workloads": works}}}}))
"""


def checkout(place, script):
    (place / "benchmarks").mkdir()
    (place / "benchmarks" / "__init__.py").touch()
    (place / "benchmarks" / "engine.py").write_text(script)


def test_peers_are_measured_by_a_checkout_and_absent_ones_say_so(small, tmp_path, monkeypatch, capsys):
    checkout(tmp_path, PEERS)
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "engine", "--formats", "fp32", "--peers"]) == 0
    said = capsys.readouterr().out
    assert "ours fp32         2.0" in said
    assert "theirs fp32: absent: make peers makes it" in said


def test_peers_need_a_checkout_whose_benchmark_works(tmp_path):
    with pytest.raises(InputError, match="--peers needs a checkout"):
        bench_peers(["fp32"], place=tmp_path)
    checkout(tmp_path, "raise SystemExit(3)")
    with pytest.raises(RunError, match="failed with exit code 3"):
        bench_peers(["fp32"], place=tmp_path)


def test_installed_peers_are_named_without_being_asked_for(small, tmp_path, monkeypatch, capsys):
    path, _, _ = ENVIRONMENTS["vllm"]
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).touch()
    monkeypatch.chdir(tmp_path)
    known = {"transformers": object()}
    monkeypatch.setattr("importlib.util.find_spec", lambda module: known.get(module))
    assert installed_peers() == {"transformers": "this environment", "vllm": ".venv-vllm", "llama.cpp": None}
    assert main(["bench", "engine", "--formats", "fp32"]) == 0
    assert (
        "peers: transformers in this environment, vllm in .venv-vllm, llama.cpp absent"
        in capsys.readouterr().out
    )
    assert main(["bench", "engine", "--formats", "fp32", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["installed_peers"]["llama.cpp"] is None


def test_no_checkout_is_said_before_anything_is_measured(tmp_path, monkeypatch, capsys):
    def measured(*_):
        raise AssertionError("measured first")

    monkeypatch.setattr(speed, "bench_engine", measured)
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "engine", "--peers"]) == 2
    assert "--peers needs a checkout" in capsys.readouterr().err


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_peers_that_fail_take_no_figure_of_ours_with_them(form, small, tmp_path, monkeypatch, capsys):
    checkout(tmp_path, "raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "engine", "--formats", "fp32", "--peers", *form]) == 1
    said = capsys.readouterr()
    assert "failed with exit code 3" in said.err
    assert "small" in (json.loads(said.out)["models"] if form else said.out)
