"""`engine = "vllm"` in a recipe: every stage that samples does so on the server, and what a recipe may say of it."""

import pytest

from clearseek.cli.main import main
from clearseek.config.engine import Vllm
from clearseek.config.errors import InputError, RunError
from clearseek.config.load import apply_override, parse_recipe
from clearseek.config.toml import to_toml
from clearseek.ledger.log import read
from clearseek.model.checkpoint import load_model
from clearseek.recipe.memory import memory_of
from clearseek.recipe.run import run_recipe
from clearseek.recipe.workload import work_of
from tests.engine.vllm_stand_in import VllmStandIn
from tests.recipe.bases import make_base

DIGITS = {"tasks": ["digits"], "levels": [1], "languages": ["en"]}
EVALUATION = {"count": 3, "max_completion_tokens": 4, "probes": 1, "problems": DIGITS}
ROWS = [{"problems": DIGITS, "count": 6}]


@pytest.fixture
def base(tmp_path):
    return make_base(tmp_path / "base", ["1 + 1 = 2, one and one is two"] * 9)


def stages(base, engine):
    """One of every kind that samples; the reward is the language alone, so that a wrong model learns too."""
    common = {"start": str(base), "engine": engine}
    # decay: weights change at every step, whatever the reward; the same ones are not asked the same again
    trains = {"sequence_length": 256, "evaluate_every": 1, "optimizer": {"weight_decay": 0.1}}
    return {
        "cold": common | trains | {"kind": "sft", "data": ROWS, "batch_rows": 3, "evaluate": True},
        "rl": common | trains | {
            "kind": "rl", "profile": "r1", "problems": DIGITS, "steps": 2, "problems_per_step": 2, "group_size": 2,
            "max_completion_tokens": 6,
        },
        "look": common | {"kind": "eval", "evaluation": EVALUATION | {"samples": 2}},
        "student": common | trains | {"kind": "distill", "data": ROWS, "batch_rows": 3},
    }  # fmt: skip


def recipe_of(tmp_path, base, engine):
    path = tmp_path / "r.toml"
    values = {"name": "r", "dtype": "float32", "compile": False, "evaluation": EVALUATION}
    path.write_text(to_toml(values | {"stages": stages(base, engine)}))
    return str(path)


def test_every_stage_samples_on_the_server(tmp_path, base):
    """The server takes over weights whenever they change, and what is left in the run is no more than ever."""
    with VllmStandIn(load_model(base)) as server:
        recipe = recipe_of(tmp_path, base, {"kind": "vllm", "url": server.url})
        run = run_recipe(recipe, out=tmp_path / "run", device="cpu").run_dir
        asked = [body["max_tokens"] for body in server.questions]
    records = read(run / "ledger.jsonl")
    assert [r["stage"] for r in records if r["kind"] == "stage_finished"] == ["cold", "rl", "look", "student"]
    evaluations = [r for r in records if r["kind"] == "eval"]
    assert asked.count(4) == 3 * len(evaluations)
    assert asked.count(6) == 2 * 2
    assert max(r["mismatch"] for r in records if r["kind"] == "step" and r["stage"] == "rl") < 1e-4
    (started,) = [r for r in records if r["kind"] == "stage_started" and r["stage"] == "rl"]
    assert started["config"]["engine"]["url"] == server.url
    plain = run_recipe(recipe_of(tmp_path, base, "clearseek"), out=tmp_path / "plain", device="cpu").run_dir
    assert files_of(run) == files_of(plain)


def files_of(run):
    return sorted(str(path.relative_to(run)) for path in run.rglob("*"))


def test_a_reject_stage_samples_on_the_server(tmp_path, base):
    """That a random model solves nothing is told as ever."""
    reject = {"kind": "reject", "start": str(base), "problems": DIGITS, "count": 3, "samples": 2}
    with VllmStandIn(load_model(base)) as server:
        stage = reject | {"max_completion_tokens": 5, "engine": {"kind": "vllm", "url": server.url}}
        path = tmp_path / "r.toml"
        path.write_text(to_toml({"name": "r", "dtype": "float32", "stages": {"reject": stage}}))
        with pytest.raises(RunError, match="stage reject kept no sample of 3 problems"):
            run_recipe(str(path), out=tmp_path / "run", device="cpu")
        assert [(body["n"], body["max_tokens"]) for body in server.questions] == [(2, 5)] * 3


def test_a_server_that_is_not_there_fails_in_one_line(tmp_path, base, capsys):
    """Exit code 1; what was done before is kept, and the same command goes on."""
    engine = {"kind": "vllm", "url": "http://127.0.0.1:9", "start_timeout_seconds": 0.2}
    recipe, out = recipe_of(tmp_path, base, engine), tmp_path / "run"
    assert main(["run", recipe, "--out", str(out), "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert "no vLLM at http://127.0.0.1:9 within 0.2 s" in said
    assert "VLLM_SERVER_DEV_MODE=1 vllm serve" in said
    assert "Traceback" not in said


def parsed(engine):
    values = {"name": "r", "stages": {"rl": {"kind": "rl", "start": "x", "steps": 1}}}
    if isinstance(engine, str):
        apply_override(values, f"rl.engine={engine}")
    else:
        values["stages"]["rl"]["engine"] = engine
    return parse_recipe(values, "r.toml").stages["rl"].engine


def test_a_name_stands_for_an_engine_with_its_defaults():
    assert parsed("vllm") == parsed({"kind": "vllm"}) == Vllm(kind="vllm")
    assert parsed("clearseek") is None
    assert parsed({"kind": "vllm", "url": "https://host:1/path/"}).url == "https://host:1/path"


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ("vlm", r"stages\.rl\.engine: no engine 'vlm'; known: clearseek, vllm"),
        (3, r"stages\.rl\.engine = 3: input should be a table"),
        ({"url": "http://a"}, r"stages\.rl\.engine\.kind is missing"),
        ({"kind": "vllm", "ur": "http://a"}, r"unknown key stages\.rl\.engine\.ur; did you mean 'url'"),
        ({"kind": "sglang"}, r"stages\.rl\.engine\.kind = 'sglang': input should be 'vllm'"),
        ({"kind": "vllm", "url": "localhost:8000"}, r"'localhost:8000' is not a web address, such as http://127"),
        ({"kind": "vllm", "requests_at_once": 0}, r"requests_at_once = 0: input should be greater than or equal to 1"),
    ],
)  # fmt: skip
def test_what_is_no_engine_is_refused(engine, message):
    with pytest.raises(InputError, match=message):
        parsed(engine)


def test_a_tokenizer_samples_nothing_and_takes_no_engine():
    stage = {"kind": "tokenizer", "vocab_size": 300, "data": ROWS, "engine": "vllm"}
    with pytest.raises(InputError, match=r"unknown key stages\.t\.engine"):
        parse_recipe({"name": "r", "stages": {"t": stage}}, "r.toml")


def test_a_server_has_its_own_memory(base):
    needed = []
    for engine in ("clearseek", "vllm"):
        recipe = parse_recipe({"name": "r", "stages": {"rl": stages(base, engine)["rl"]}}, "r.toml")
        needed.append(memory_of(recipe, work_of(recipe, "rl")))
    assert needed[0].engine_weights > 0
    assert (needed[1].engine_weights, needed[1].engine_cache) == (0, 0)
    assert needed[1].total < needed[0].total


def test_a_recipe_bounds_the_cache_of_our_own_engine(base):
    table = {"name": "r", "cache_gib": 0.0001, "stages": {"rl": stages(base, "clearseek")["rl"]}}
    recipe = parse_recipe(table, "r.toml")
    needed = memory_of(recipe, work_of(recipe, "rl"))
    assert needed.engine_cache == 0.0001 * 2**30
    with pytest.raises(InputError, match=r"cache_gib = 0.0: input should be greater than 0"):
        parse_recipe(table | {"cache_gib": 0.0}, "r.toml")


def test_a_resumed_run_needs_no_server_for_what_is_done(tmp_path, base):
    """A finished run says so though the server is gone."""
    with VllmStandIn(load_model(base)) as server:
        recipe = recipe_of(tmp_path, base, {"kind": "vllm", "url": server.url})
        run_recipe(recipe, out=tmp_path / "run", device="cpu")
    before = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    run_recipe(recipe, out=tmp_path / "run", device="cpu")
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == before
