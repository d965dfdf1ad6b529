"""The thin commands: what they hand to the rooms below and how they print what comes back."""

import io
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from clearseek.cli.main import main
from clearseek.ledger.log import Ledger
from tests.cli.fakes import put_module

REPORT = {
    "recipe": "mine",
    "stages": [
        {"name": "tokenizer", "kind": "tokenizer", "wall_seconds": 1.2},
        {
            "name": "cold",
            "kind": "sft",
            "wall_seconds": 75,
            "eval": {"pass_at_1": 0.5, "ci95": [0.4, 0.6], "n": 96},
        },
    ],
}


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("")
    return str(path)


@pytest.fixture
def runs(monkeypatch):
    calls = []

    def run_recipe(path, **settings):
        calls.append((path, settings))
        return SimpleNamespace(run_dir=Path("runs/mine"), report=REPORT)

    put_module(monkeypatch, "clearseek.recipe.run", run_recipe=run_recipe)
    return calls


def test_run_hands_over_every_option(runs, recipe, capsys):
    arguments = ["-s", "rl.steps=3", "--set", "rl.seed=4", "--out", "runs/x", "--fork", "--device", "cpu"]
    assert main(["run", recipe, *arguments]) == 0
    path, settings = runs[0]
    settings.pop("progress").end()
    assert path == recipe
    assert settings == {
        "overrides": ["rl.steps=3", "rl.seed=4"],
        "out": Path("runs/x"),
        "fork": True,
        "device": "cpu",
        "lane": None,
    }


def test_run_prints_what_each_stage_gave_and_what_to_do_next(runs, recipe, capsys):
    assert main(["run", recipe]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["cold", "sft", "1", "min", "15", "s", "50.0%", "40.0%", "to", "60.0%"]
    assert lines[-2:] == ["report  runs/mine/report.html", "talk    clearseek chat runs/mine"]


def test_run_json_is_the_report(runs, recipe, capsys):
    assert main(["run", recipe, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == REPORT


def test_later_ranks_print_nothing(runs, recipe, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert main(["run", recipe]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("option", [["--accelerator", "h800"], ["--count", "2"], ["--price", "2"]])
def test_planner_options_need_a_dry_run(runs, recipe, capsys, option):
    assert main(["run", recipe, *option]) == 2
    assert f"{option[0]} belongs to --dry-run" in capsys.readouterr().err
    assert runs == []


@pytest.fixture
def planner(monkeypatch, runs):
    calls = []

    def plan_recipe(recipe, **settings):
        calls.append((recipe, settings))
        return SimpleNamespace(
            to_dict=lambda: {"parameters": 5}, render=lambda: ["parameters  5", "memory  1"]
        )

    put_module(monkeypatch, "clearseek.recipe.plan", plan_recipe=plan_recipe)
    put_module(
        monkeypatch, "clearseek.config.load", load_recipe=lambda path, overrides: (path.name, overrides)
    )
    return calls


def test_dry_run_prints_the_plan_and_runs_nothing(planner, runs, recipe, capsys):
    options = ["--accelerator", "h800", "--count", "2048", "--price", "2", "-s", "rl.steps=3"]
    assert main(["run", recipe, "--dry-run", *options]) == 0
    assert capsys.readouterr().out == "parameters  5\nmemory  1\n"
    assert planner == [
        (("mine.toml", ["rl.steps=3"]), {"accelerator": "h800", "count": 2048, "price_per_hour": 2.0})
    ]
    assert runs == []


@pytest.mark.parametrize("price", ["nan", "inf", "-1"])
def test_a_price_is_a_finite_number(planner, recipe, capsys, price):
    assert main(["run", recipe, "--dry-run", "--price", price]) == 2
    assert "Invalid value for '--price': " in capsys.readouterr().err


def test_dry_run_json(planner, recipe, capsys):
    assert main(["run", recipe, "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"parameters": 5}


def test_run_of_a_missing_recipe_is_wrong_input(runs, capsys):
    assert main(["run", "nowhere/none.toml"]) == 2
    assert capsys.readouterr().err.startswith("error: no recipe at nowhere/none.toml")


EVALUATION = {
    "pass_at_1": 0.875,
    "ci95": [0.83, 0.91],
    "n": 300,
    "by_task": {"countdown": 0.5, "digits": {"pass_at_1": 1.0}},
    "by_language": {"ko": 0.9},
    "language_consistency": 0.995,
    "mean_completion_tokens": 41.25,
    "truncated": 2,
    "errors": 0,
}


@pytest.fixture
def evaluations(monkeypatch):
    calls = []

    def evaluate_path(model, **settings):
        settings.pop("progress").end()
        calls.append((model, settings))
        return EVALUATION

    put_module(monkeypatch, "clearseek.eval.command", evaluate_path=evaluate_path)
    return calls


def test_eval_hands_over_every_option(evaluations, capsys):
    options = ["--tasks", "digits, countdown", "--tasks", "mine.jsonl", "--samples", "4", "--problems", "9"]
    assert main(["eval", "m", *options, "--temperature", "1", "--seed", "7", "--device", "cpu"]) == 0
    assert evaluations == [
        (
            Path("m"),
            {
                "tasks": ["digits", "countdown", "mine.jsonl"],
                "samples": 4,
                "problems": 9,
                "temperature": 1.0,
                "seed": 7,
                "device": "cpu",
            },
        )
    ]


@pytest.mark.parametrize("tasks", ["", "digits,", " , "])
def test_eval_refuses_a_task_without_a_name(evaluations, capsys, tasks):
    assert main(["eval", "m", "--tasks", tasks]) == 2
    assert "--tasks holds an empty name" in capsys.readouterr().err
    assert evaluations == []


def test_eval_prints_a_table(evaluations, capsys):
    assert main(["eval", "m"]) == 0
    out = capsys.readouterr().out
    rows = [" ".join(line.split()) for line in out.splitlines()]
    assert rows[0] == "pass@1 87.5% 83.0% to 91.0%, 300 problems"
    assert "digits 100.0%" in rows
    assert evaluations[0][1]["tasks"] is None


def test_eval_json(evaluations, capsys):
    assert main(["eval", "m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == EVALUATION


def test_new_prints_the_path_and_the_next_step(monkeypatch, capsys):
    calls = []

    def new_recipe(name, **settings):
        calls.append((name, settings))
        return Path("mine.toml")

    put_module(monkeypatch, "clearseek.recipe.new", new_recipe=new_recipe)
    assert main(["new", "mine", "--base", "runs/a", "--data", "p.jsonl"]) == 0
    out, err = capsys.readouterr()
    assert out == "mine.toml\n"
    assert "clearseek run mine.toml" in err
    settings = {"base": Path("runs/a"), "data": Path("p.jsonl"), "out": None, "lora": False}
    assert calls == [("mine", settings)]
    assert main(["new", "mine", "--base", "runs/a", "--data", "p.jsonl", "--lora"]) == 0
    assert calls[1] == ("mine", settings | {"lora": True})


@pytest.fixture
def finished_run(tmp_path):
    """A run whose ledger says only that it began and ended."""
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append("run", recipe="mine", seed=3)
        ledger.append("run_finished")
    return tmp_path


def test_report_prints_both_files(finished_run, capsys):
    assert main(["report", str(finished_run)]) == 0
    written = [finished_run / "report.html", finished_run / "report.json"]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in written]
    assert all(path.stat().st_size for path in written)


def test_report_json_is_what_it_wrote(finished_run, capsys):
    assert main(["report", str(finished_run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((finished_run / "report.json").read_text())


def test_report_of_a_missing_run_is_wrong_input(capsys):
    assert main(["report", "runs/none"]) == 2
    assert "runs/none" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("candidate", "verdict"), [(" 42.0\n", "correct"), ("41", "wrong"), ("many", "unparseable")]
)
def test_verify_gives_a_verdict_and_succeeds(monkeypatch, capsys, candidate, verdict):
    monkeypatch.setattr("sys.stdin", io.StringIO(candidate))
    assert main(["verify", "number", "--answer", "42"]) == 0
    assert capsys.readouterr().out == f"{verdict}\n"


def test_verify_json(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("42"))
    assert main(["verify", "number", "--answer", "42", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"verdict": "correct"}


def test_verify_says_why_a_verifier_failed(monkeypatch, tmp_path, capsys):
    (tmp_path / "mine.py").write_text("def check(candidate, answer):\n    raise KeyError('broken here')\n")
    monkeypatch.setattr("sys.stdin", io.StringIO("42"))
    assert main(["verify", f"{tmp_path}/mine.py:check", "--answer", "42"]) == 0
    out, err = capsys.readouterr()
    assert out == "error\n"
    assert "broken here" in err


def test_verify_refuses_an_unknown_verifier(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("42"))
    assert main(["verify", "nmber", "--answer", "42"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_doctor_of_a_healthy_run(finished_run, capsys):
    assert main(["doctor", str(finished_run)]) == 0
    assert capsys.readouterr().out == "nothing ails this run\n"


def test_doctor_of_a_stopped_run(tmp_path, capsys):
    with Ledger(tmp_path / "ledger.jsonl") as ledger:
        ledger.append("run", recipe="mine", seed=3)
    assert main(["doctor", str(tmp_path)]) == 0
    assert "try:  run the same command again" in capsys.readouterr().out
    assert main(["doctor", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["severity"] == "warning"


def test_doctor_of_a_folder_that_is_no_run_is_wrong_input(tmp_path, capsys):
    assert main(["doctor", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.fixture
def machine(monkeypatch):
    choice = SimpleNamespace(device="cpu", dtype="torch.float32", reason="no accelerator was found")
    put_module(monkeypatch, "clearseek.model.device", choose_device=lambda name: choice)


def test_doctor_describes_the_machine(machine, capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "device        cpu in float32: no accelerator was found" in out
    assert out.startswith("processor ")


def test_doctor_json_has_stable_keys(machine, capsys):
    assert main(["doctor", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {
        "processor", "cores", "memory_bytes", "system", "python", "instructions", "memory_available_bytes",
        "disk_free_bytes", "compiler", "packages", "device", "dtype", "reason",
    }  # fmt: skip
