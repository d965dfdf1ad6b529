"""The command line as a whole: its speed, its suggestions, and how errors become lines and exit codes."""

import errno
import importlib
import os
import subprocess
import sys

import click
import pytest

from clearseek import __version__
from clearseek.cli import main as cli_main
from clearseek.cli.main import COMMANDS, main
from clearseek.config.errors import InputError, RunError


@pytest.fixture
def failing(monkeypatch):
    """Make `clearseek report .` raise the given exception."""

    def arrange(error: BaseException) -> None:
        def fail(*args, **kwargs):
            raise error

        monkeypatch.delenv("CLEARSEEK_DEBUG", raising=False)
        monkeypatch.setattr(importlib.import_module("clearseek.cli.report").command, "callback", fail)

    return arrange


def run_fresh(*arguments: str, probe: str = "") -> subprocess.CompletedProcess:
    code = (
        f"import sys\nfrom clearseek.cli.main import main\ncode = main(sys.argv[1:])\n{probe}\nsys.exit(code)"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    "arguments", [("--help",), ("run", "--help"), ("completion", "bash"), ("--version",)]
)
def test_help_imports_nothing_heavy(arguments):
    heavy = "('torch', 'pydantic', 'numpy', 'rich', 'tokenizers', 'sympy', 'jinja2')"
    result = run_fresh(*arguments, probe=f"print([n for n in {heavy} if n in sys.modules], file=sys.stderr)")
    assert result.returncode == 0
    assert result.stderr.strip().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_waiting_threads_sleep_unless_told_otherwise(monkeypatch, capsys, given, wanted):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    main(["--version"])
    assert os.environ.get("GOMP_SPINCOUNT") == wanted


def test_help_names_every_command_and_exit_code(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)
    assert "Exit codes: 0 done, 1 failed, 2" in text


def test_table_says_what_the_commands_say():
    for name, (module, short) in COMMANDS.items():
        command = importlib.import_module(module).command
        assert command.name == name
        assert command.get_short_help_str(limit=200) == short


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_example_and_exit_codes_in_help(name, capsys):
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert "Example" in text
    assert f"clearseek {name}" in text
    assert "Exit codes: 0" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_but_seed_explains_itself(name):
    command = importlib.import_module(COMMANDS[name][0]).command
    silent = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert silent in ([], ["seed"])


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"clearseek {__version__}\n"


def test_without_arguments_shows_help_and_fails(capsys):
    assert main([]) == 2
    assert "Commands:" in "".join(capsys.readouterr())


def test_misspelt_command_is_refused_with_the_nearest(capsys):
    assert main(["genrate", "x"]) == 2
    assert "did you mean 'generate'?" in capsys.readouterr().err


def test_unlike_command_is_refused_with_all(capsys):
    assert main(["zzz"]) == 2
    assert "known are run, chat, generate" in capsys.readouterr().err


def test_misspelt_option_is_refused_with_the_nearest(capsys):
    assert main(["run", "r1-mini", "--dryrun"]) == 2
    assert "--dry-run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "exit_code", "line"),
    [
        (InputError("recipe.toml: no key 'stpes'"), 2, "error: recipe.toml: no key 'stpes'\n"),
        (RunError("disk full"), 1, "error: disk full\n"),
        (PermissionError(13, "Permission denied", "runs/x"), 1, "error: runs/x: Permission denied\n"),
    ],
)
def test_errors_are_one_line(failing, capsys, error, exit_code, line):
    failing(error)
    assert main(["report", "."]) == exit_code
    out, err = capsys.readouterr()
    assert (out, err) == ("", line)


def test_our_own_mistake_is_named_and_says_where_to_report(failing, capsys):
    failing(KeyError("hidden"))
    assert main(["report", "."]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: KeyError: 'hidden'\n")
    assert "Traceback" not in err
    assert "CONTRIBUTING.md" in err


def test_debug_shows_the_traceback(failing, monkeypatch):
    failing(KeyError("hidden"))
    monkeypatch.setenv("CLEARSEEK_DEBUG", "1")
    with pytest.raises(KeyError):
        main(["report", "."])


def test_debug_option_sets_the_variable(failing, monkeypatch):
    failing(KeyError("hidden"))
    monkeypatch.setenv("CLEARSEEK_DEBUG", "0")
    with pytest.raises(KeyError):
        main(["--debug", "report", "."])


def test_interrupt_of_another_command_is_130(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["report", "."]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_interrupt_of_a_run_says_how_to_go_on(monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(importlib.import_module("clearseek.cli.run").command, "callback", fail)
    assert main(["run", "mine.toml", "--out", "runs/my run"]) == 130
    assert (
        "the same command continues: clearseek run mine.toml --out 'runs/my run'" in capsys.readouterr().err
    )


def test_memory_error_points_at_the_planner(failing, capsys):
    failing(MemoryError())
    assert main(["report", "."]) == 1
    assert "--dry-run" in capsys.readouterr().err


def test_closed_pipe_is_quiet():
    command = f"{sys.executable} -c 'from clearseek.cli.main import main; main([\"--help\"])' | true"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert result.stderr == ""


def test_module_form_is_the_same_command():
    result = subprocess.run(
        [sys.executable, "-m", "clearseek", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout == f"clearseek {__version__}\n"


def test_exit_codes_are_the_documented_ones():
    assert (cli_main.DONE, cli_main.FAILED, cli_main.WRONG_INPUT, cli_main.INTERRUPTED) == (0, 1, 2, 130)


def test_a_full_disk_says_what_to_do_even_where_nobody_expected_it(failing, capsys):
    failing(OSError(errno.ENOSPC, "No space left on device"))
    assert main(["report", "."]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: No space left on device; make room and run the same command again")
    assert said.count("\n") == 1
